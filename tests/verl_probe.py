"""What verl itself makes of rows; runs inside verl's environment: `python verl_probe.py JOB.json OUT.json`.

A job is {name: case}, the answer {name: what verl did}. Cases have a `kind`:
- sft: `files`, `tokenizer`, `options` (below `data.`) -> `rows`, one per row of the files (each its own dataset): `ids`
  and `mask` without padding, or `error`; `error` where the dataset cannot be made; `micro_batch_error` of one batch of
  all rows that do not raise.
- rl: `files`, `tokenizer`, `options` -> `rows`: `index` of each kept row (extra_info) and the `ids` that the agent loop
  passes to the policy, or `error`; `num_batches` of an epoch.
- options: -> `sft` and `rl`: the names and defaults below `data.` in verl's YAML.
"""

import json
import sys
import types
from pathlib import Path

import torch
import verl
from omegaconf import OmegaConf
from tensordict import TensorDict
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.experimental.agent_loop.agent_loop import AgentLoopBase
from verl.utils import hf_tokenizer
from verl.utils.dataset.dataset_utils import SFTTensorCollator
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn
from verl.utils.seqlen_balancing import rearrange_micro_batches
from verl.utils.tokenizer.continuous_token_wiring import create_continuous_token_builder

CONFIG = Path(verl.__file__).parent / "trainer" / "config"


def data_options(kind):
    if kind == "sft":
        return OmegaConf.load(CONFIG / "sft_trainer_engine.yaml").data
    return OmegaConf.load(CONFIG / "data" / "legacy_data.yaml")


def said(error):
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"


def sft(case):
    options = OmegaConf.merge(data_options("sft"), case["options"])
    tokenizer = hf_tokenizer(case["tokenizer"])
    found, kept = [], []
    for file in case["files"]:
        try:
            dataset = MultiTurnSFTDataset(file, tokenizer, options)
        except Exception as error:
            return {"error": said(error)}
        for index in range(len(dataset)):
            try:
                row = dataset[index]
            except Exception as error:
                found.append({"error": said(error)})
                continue
            kept.append(row)
            length = int(row["attention_mask"].sum()) if "attention_mask" in row else len(row["input_ids"])
            found.append({"ids": row["input_ids"][:length].tolist(), "mask": row["loss_mask"][:length].tolist()})
    return {"rows": found, "micro_batch_error": micro_batch_error(kept, options)}


def micro_batch_error(rows, options):
    if not rows:
        return None
    try:
        batch = TensorDict(SFTTensorCollator(options.pad_mode)(rows), batch_size=len(rows))
        rearrange_micro_batches(batch, max_token_len=options.max_token_len_per_gpu)
    except AssertionError as error:
        return said(error)
    return None


def rl(case):
    options = OmegaConf.merge(data_options("rl"), case["options"], {"cache_dir": case["cache"]})
    tokenizer = hf_tokenizer(case["tokenizer"])
    dataset = RLHFDataset(case["files"], tokenizer, options)
    kwargs = OmegaConf.to_container(options.apply_chat_template_kwargs)
    builder = create_continuous_token_builder(tokenizer, chat_template_kwargs=kwargs)
    loop = types.SimpleNamespace(rollout_config=types.SimpleNamespace(prompt_length=options.max_prompt_length))
    found = []
    for index in range(len(dataset)):
        row = dataset[index]
        answer = {"index": row["index"]}
        try:
            ids = builder.build_initial_tokens(list(row["raw_prompt"]))
            answer["ids"] = AgentLoopBase._cap_text_prompt_length(loop, ids)
        except Exception as error:
            answer["error"] = said(error)
        found.append(answer)
    loader = StatefulDataLoader(
        dataset, batch_size=options.train_batch_size, drop_last=True, collate_fn=collate_fn,
        sampler=torch.utils.data.SequentialSampler(dataset),
    )  # fmt: skip
    return {"rows": found, "num_batches": len(loader)}


def options(case):
    return {kind: OmegaConf.to_container(data_options(kind), resolve=True) for kind in ("sft", "rl")}


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text())
    kinds = {"sft": sft, "rl": rl, "options": options}
    answers = {name: kinds[case["kind"]](case) for name, case in job.items()}
    Path(sys.argv[2]).write_text(json.dumps(answers))
