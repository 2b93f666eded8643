"""A rollout of verl 0.9.1 without an accelerator, for tests: transformers' generate in one Ray actor, registered as
`rollout.name=hfcpu`. It ignores top_k and top_p; weights travel as float32 copies."""

import asyncio

import ray
import torch
from verl.workers.rollout import base
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

SERVER = "hfcpu_server"


class Server:
    """What the agent loop asks: tokens with their log-probabilities; and new weights after each step. What is asked
    while an answer is written is answered together."""

    def __init__(self, path, response_length):
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        ends = self.model.generation_config.eos_token_id
        self.ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
        self.pad = self.model.generation_config.pad_token_id or 0
        self.response_length, self.step = response_length, 0
        self.waiting, self.writing = [], asyncio.Lock()

    async def load(self, weights, step):
        own = self.model.state_dict()
        taken = [name for name in weights if name in own]
        for name in taken:
            own[name].copy_(weights[name])
        self.step = step
        return len(taken)

    async def generate(self, prompt_ids, sampling_params, request_id, **kwargs):
        asked = float(sampling_params.get("temperature", 1.0))
        answer = asyncio.get_running_loop().create_future()
        self.waiting.append((asked, list(prompt_ids), answer))
        async with self.writing:
            await asyncio.sleep(0.01)  # whoever asks at the same time
            if not answer.done():
                together = [item for item in self.waiting if item[0] == asked]
                self.waiting = [item for item in self.waiting if item[0] != asked]
                for item, found in zip(together, self.write([item[1] for item in together], asked), strict=True):
                    item[2].set_result(found)
        return await answer

    def write(self, prompts, asked):
        width, temperature = max(map(len, prompts)), asked or 1.0
        ids = torch.tensor([[self.pad] * (width - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            out = self.model.generate(ids, attention_mask=mask, max_new_tokens=self.response_length,
                                      do_sample=asked != 0, temperature=temperature, top_k=0, top_p=1.0,
                                      return_dict_in_generate=True, output_logits=True)  # fmt: skip
        new = out.sequences[:, width:]
        chances = torch.stack([torch.log_softmax(logits.float() / temperature, -1) for logits in out.logits], 1)
        log_probs = chances.gather(2, new[:, :, None])[:, :, 0].tolist()
        return [self.told(row, chance) for row, chance in zip(new.tolist(), log_probs, strict=True)]

    def told(self, tokens, log_probs):
        length = next((place + 1 for place, token in enumerate(tokens) if token in self.ends), len(tokens))
        return TokenOutput(token_ids=tokens[:length], log_probs=log_probs[:length], stop_reason="completed",
                           num_preempted=0, extra_fields={"global_steps": self.step})  # fmt: skip

    async def nothing(self, *args, **kwargs):
        return None

    wake_up = sleep = clear_kv_cache = abort_all_requests = resume_generation = nothing
    release_kv_cache = resume_kv_cache = start_profile = stop_profile = set_global_steps = nothing


class Replica(RolloutReplica):
    async def launch_servers(self):
        server = ray.remote(Server).options(name=SERVER, num_cpus=0, max_concurrency=64).remote(
            self.model_config.path, self.config.response_length)  # fmt: skip
        self.servers, self._server_handle, self._server_address = [server], server, "hfcpu:0"
        await server.nothing.remote()

    def get_ray_class_with_init_args(self):
        raise NotImplementedError


class Adapter(BaseRollout):
    async def resume(self, tags):
        pass

    async def release(self):
        pass

    async def update_weights(self, weights, wire_format="named_tensors", **kwargs):
        copies = {}
        if hasattr(weights, "__aiter__"):
            async for name, tensor in weights:
                copies[name] = tensor.detach().float().cpu().clone()
        else:
            copies = {name: tensor.detach().float().cpu().clone() for name, tensor in weights}
        step = kwargs.get("global_steps")
        taken = await ray.get_actor(SERVER).load.remote(copies, step)
        print(f"hfcpu: weights of step {step}: {taken} of {len(copies)} tensors", flush=True)


base._ROLLOUT_REGISTRY[("hfcpu", "async")] = "verl_cpu_rollout.Adapter"
RolloutReplicaRegistry.register("hfcpu", lambda: Replica)
