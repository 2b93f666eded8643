"""A platform of verl 0.9.1 without an accelerator, for tests: FSDP2, one process, gloo. verl loads it by
VERL_USE_EXTERNAL_MODULES; no source of verl is touched. Memory figures are zero here."""

import contextlib
import types

import torch
import torch.distributed as dist
import transformers
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry

ZERO = ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved")
NOTHING = ("empty_cache", "reset_peak_memory_stats", "synchronize", "manual_seed", "manual_seed_all", "set_device",
           "ipc_collect", "set_per_process_memory_fraction")  # fmt: skip


def device_module():
    """torch.cpu with the calls that verl makes of a device: memory, seeds, the state of the generator."""
    found = types.ModuleType("verl_cpu_device")
    for name in dir(torch.cpu):
        if not name.startswith("__"):
            setattr(found, name, getattr(torch.cpu, name))
    for name in ZERO:
        setattr(found, name, lambda *a, **k: 0)
    for name in NOTHING:
        setattr(found, name, lambda *a, **k: None)
    found.mem_get_info = lambda *a, **k: (0, 0)
    found.get_device_name = lambda *a, **k: "CPU"
    found.is_available = lambda: False
    found.device_count = lambda: 1
    found.current_device = lambda: "cpu"
    found.get_rng_state = lambda *a, **k: torch.get_rng_state()
    found.set_rng_state = lambda state, *a, **k: torch.set_rng_state(state)
    return found


MODULE = device_module()


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    device_name = property(lambda self: "cpu")
    vendor_name = property(lambda self: "cpu")
    device_module = property(lambda self: MODULE)

    def is_available(self):
        return True

    def current_device(self):
        return "cpu"

    def device_count(self):
        return 1

    def manual_seed(self, seed):
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def _nothing(self, *args, **kwargs):
        return None

    set_device = synchronize = set_allocator_settings = empty_cache = profiler_start = profiler_stop = cudart = _nothing

    def get_device_capability(self, device_index=0):
        return None, None

    def communication_backend_name(self):
        return "gloo"

    def visible_devices_envvar(self):
        return "CUDA_VISIBLE_DEVICES"

    @contextlib.contextmanager
    def nvtx_range(self, msg):
        yield

    def ray_resource_name(self):
        return "GPU"  # Ray is told of one that is not there: ray_kwargs.ray_init.num_gpus

    def ray_noset_envvars(self):
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self):
        return False


# verl asks for "cpu:gloo" beside the device's own backend, and torch refuses to be told of one device twice.
_init_process_group = dist.init_process_group


def init_process_group(backend=None, **kwargs):
    return _init_process_group(backend="gloo" if backend == "cpu:gloo,cpu:gloo" else backend, **kwargs)


dist.init_process_group = init_process_group
# The reference model is kept in pinned memory, which only an accelerator has.
torch.Tensor.pin_memory = lambda self, *args, **kwargs: self


# A critic is loaded under FlashAttention 2, whatever its settings say.
_classifier = transformers.AutoModelForTokenClassification.from_pretrained


def classifier(*args, **kwargs):
    return _classifier(*args, **kwargs | {"attn_implementation": "sdpa"})


transformers.AutoModelForTokenClassification.from_pretrained = classifier
