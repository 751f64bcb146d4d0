"""How to run, as opposed to what: nothing here changes what an experiment means."""

import dataclasses
import importlib.util
import math

from jaxtl.files import user_path
from jaxtl.paths import unknown

MOST_CPU_DEVICES = 512
DTYPES = ("float32", "bfloat16")
LEAST = {"micro_batch": -1}
"""Of the numbers whose least value is not 0."""


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Set on the command line by `--run.<field>=<value>`."""

    data_dir: str = ""
    """folder of the TFDS datasets; empty: TFDS_DATA_DIR, else TFDS's own default"""
    mesh: str = ""
    """devices, as in data=4,model=2: data splits batches, model splits parameters; empty: all
    accelerators along data, one CPU device"""
    cpu_devices: int = 0
    """split the CPU into so many devices; 0: as many as XLA_FLAGS says, usually one"""
    dtype: str = "float32"
    """what models compute in, float32 or bfloat16; parameters are float32 either way"""
    source_run: str = ""
    """directory of another run whose finished source stages are loaded instead of trained"""
    checkpoint_minutes: float = 1.0
    """minutes of training between checkpoints, more where saving is slow; 0: none by time; a stage
    also saves when it ends or is interrupted"""
    checkpoint_every: int = 0
    """steps between checkpoints; 0: none by steps"""
    log_every: int = 0
    """steps between lines of metrics.jsonl; 0: at most about 500 lines a stage"""
    steps_per_dispatch: int = 0
    """training steps per compiled call; 0: as many as take about 50 ms, measured while a stage
    trains"""
    micro_batch: int = 0
    """examples per micro-batch where the method allows it; 0: chosen, -1: never split"""
    feature_cache: bool = True
    """compute the outputs of frozen first blocks once per example, where that changes nothing"""
    feature_cache_mb: int = 2048
    """memory for such outputs; above it they lie on disk"""
    feature_folder: str = "auto"
    """folder where such outputs are kept for other stages and later runs, if they took longer to
    compute than to read; auto: a per-user cache, empty: none"""
    feature_folder_mb: int = 10_240
    """what that folder may hold; the outputs that nobody used for longest are removed"""
    device_data_mb: int = 0
    """memory on a device for the inputs of a stage or an evaluation, which are else read from the
    host; 0: half of the device's, if it says how much it has"""
    eval_batch: int = 0
    """examples per batch of an evaluation; 0: chosen from the model and the device"""
    compilation_cache: str = "auto"
    """folder of compiled programs; auto: a per-user cache, empty: none"""
    tensorboard: bool = False
    """also write events, the mean and each seed, for tensorboard --logdir=RUN_DIR/stages; needs
    pip install -e '.[tensorboard]'"""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), LEAST.get(field.name, 0)
            if field.type is float and not math.isfinite(value):
                raise ValueError(f"run.{field.name} must be finite, got {value}")
            if field.type in (int, float) and value < least:
                raise ValueError(f"run.{field.name} must be at least {least}, got {value}")
            if field.type is int and value >= 2**31:
                raise ValueError(f"run.{field.name} must be below 2**31, got {value}")
        if self.cpu_devices > MOST_CPU_DEVICES:
            raise ValueError(
                f"run.cpu_devices must be at most {MOST_CPU_DEVICES}, got {self.cpu_devices}"
            )
        if self.dtype not in DTYPES:
            raise ValueError(unknown("run.dtype", self.dtype, DTYPES))
        if self.tensorboard and importlib.util.find_spec("tensorboardX") is None:
            raise ValueError(
                "run.tensorboard needs the package tensorboardX: pip install -e '.[tensorboard]'"
            )
        for field in ("data_dir", "source_run", "compilation_cache", "feature_folder"):
            object.__setattr__(self, field, user_path(getattr(self, field)))
