"""The records that flow through the program: Source → Analysis → Plan → Patch → Run → Verdict → Report.

All are frozen. Lines are 1-based; columns are 0-based and count characters of `Source.text`; ends are exclusive.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Task = Literal["inference", "training"]
Setting = str | int | float | bool | None | tuple[str, ...]
"""The value of a setting within a feature."""
SCHEMA_VERSION = 1

_LONGEST_SETTING = 60
"""Characters of a setting's value in the name of a variant, which names a folder as well."""


class Safety(enum.Enum):
    """How much a feature may change the answers of a script."""

    SAME_MATH = "same math"
    """The same arithmetic in another order or place; differences are rounding in the last digits."""
    CLOSE = "close"
    """Reduced floating-point precision (bfloat16); differences around 1 %."""
    LOSSY = "lossy"
    """Quantization; differences depend on the model and must be measured."""


# --- analysis -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Span:
    """A piece of a source text, from its first character to just behind its last one."""

    line: int
    column: int
    end_line: int
    end_column: int

    def contains(self, other: Span) -> bool:
        """Whether `other` lies inside this span (or equals it)."""
        return (self.line, self.column) <= (other.line, other.column) and (other.end_line, other.end_column) <= (
            self.end_line,
            self.end_column,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """How a fact is known and how sure we are."""

    known_by: Literal["import", "catalogue", "project", "jedi", "name", "observed"]
    """`import`: the name resolves to PyTorch itself; `catalogue`: to a well-known library; `project`: to a class or
    function of the user's own files; `jedi`: inferred by jedi; `name`: only by how things are named and used."""
    confidence: float
    """From 0 to 1."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A place where a model is built and bound to a name."""

    name: str
    """The expression that names the model afterwards, as written: `model`, `self.net`."""
    line: int
    statement: Span
    scope: str
    """Dotted name of the enclosing function or class body; `<module>` at top level."""
    qualified_name: str
    """Dotted name of what builds it, aliases resolved: `torchvision.models.resnet18`; empty when unknown."""
    library: str
    """Top-level package of the builder; `project` for the user's own classes."""
    kind: Literal["module", "pipeline"]
    """`pipeline`: an object that holds models and is called as a whole (transformers.pipeline, diffusers)."""
    ready: Span | None
    """The statement after which the model is ready (weights loaded, moved, wrapped, in its mode): insertions that
    rebind or change `name` go right behind it. None: there is no such place, `why_not_ready` says why."""
    why_not_ready: str = ""
    layers: frozenset[str] | None = None
    """Class names of layers it is known to hold (`Conv2d`, `Linear`, `LSTM`); None when that is unknown."""
    trained: bool = False
    """A training step of the project trains it, or its weights follow those of such a model."""
    inferred: bool = False
    """An inference call of the project uses it."""
    traits: frozenset[str] = frozenset()
    """What the script itself already does with it: any of `eval`, `train`, `compile`, `channels_last`, `bfloat16`,
    `half`, `double`, `jit`, `quantized`, `data_parallel`, `cuda`, `accelerate` (handed to a framework that runs it),
    `double_backward` (gradients of its gradients are taken), `export`."""
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call that runs a model forward: in inference, or as the forward of a training step."""

    kind: Literal["inference", "forward"]
    callee: str
    """What is called, as written: `model`, `self.model.generate`."""
    line: int
    call: Span
    statement: Span
    """The innermost statement around the call; for a call in the header of a compound statement, that whole one."""
    scope: str
    model: str | None
    """`Model.name` of the model in this project, or None when the model comes from outside (a parameter, say)."""
    wrappable: bool
    """Whether a `with` block may be put around `statement`."""
    why_not_wrappable: str = ""
    """In words: `inside a lambda`, `the statement yields`, ..."""
    grad_mode: Literal["enabled", "no_grad", "inference_mode"] = "enabled"
    grad_mode_at: Span | None = None
    """The expression that switches gradients off: `torch.no_grad()` of a `with` item or of a decorator."""
    grad_mode_covers_training: bool = False
    """Whether a training call, too, lies under that expression (then it must stay as it is)."""
    autocast: bool = False
    """Already under `torch.autocast`."""
    feeds_training: bool = False
    """The result is used by a training step (a teacher's output, say): it must stay a normal tensor."""
    reaches_numpy: bool = False
    """The result flows (in this function) into `.numpy()` or a NumPy call, which know no bfloat16."""
    reaches_cross_entropy: bool = False
    """The result goes, outside of autocast, to a binary cross-entropy, which takes no mixture of precisions."""
    changed_in_place: bool = False
    """The result is changed in place where gradients are on (`features /= features.norm()`): inference tensors forbid
    that."""
    loader: str | None = None
    """`DataLoader.name` of the loader whose loop this call is in."""
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCall:
    """One call of a training step."""

    kind: Literal["forward", "backward", "optimizer_step", "fit"]
    callee: str
    line: int
    call: Span
    scope: str
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStep:
    """A forward, its loss and its backward, as one step of training."""

    forwards: tuple[Call, ...]
    backward: TrainingCall
    optimizer_step: TrainingCall | None
    scope: str
    forward_and_loss: Span | None
    """From the first statement of the forward to the last of the loss, all in one block and without the backward;
    a `with` block may be put around them. None: there is no such range, `why_not` says why."""
    why_not: str = ""
    autocast: bool = False
    """Already under `torch.autocast`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """One argument of a call."""

    keyword: str | None
    """None for a positional argument; `**` and `*` for unpackings."""
    text: str
    value: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class DataLoader:
    """A place where a data loader (or another source of batches) is built."""

    name: str
    """Empty where a loop goes through it without a name: `for x in DataLoader(...)`."""
    line: int
    statement: Span
    call: Span | None
    """The constructor call, when the statement holds one."""
    scope: str
    qualified_name: str
    arguments: tuple[Argument, ...] = ()
    used_for: frozenset[Task] = frozenset()
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """A place where an optimizer is built."""

    name: str
    line: int
    call: Span
    statement: Span
    """The innermost statement around the call."""
    scope: str
    qualified_name: str
    """Aliases resolved: `torch.optim.AdamW` (also for `torch.optim.adamw.AdamW`)."""
    arguments: tuple[Argument, ...] = ()
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """An expression that names or needs a CUDA device."""

    kind: Literal["device", "cuda_method", "autocast", "grad_scaler", "map_location", "pin_memory", "cuda_call"]
    """`device`: a string such as "cuda:0", or an integer, where a device is meant; `cuda_method`: `x.cuda(...)`;
    `autocast` and `grad_scaler`: their CUDA forms; `pin_memory`: an argument or `.pin_memory()`; `cuda_call`: another
    function of `torch.cuda` that fails without a GPU (`synchronize`, `set_device`, `max_memory_allocated`, ...)."""
    line: int
    expression: Span
    text: str
    receiver: Span | None = None
    """For `cuda_method` and `.pin_memory()`: the expression in front of the dot."""
    is_statement: bool = False
    """The expression is a statement by itself (its value is not used)."""
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclear:
    """Something that looks like a site but could not be decided, and why."""

    line: int
    text: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """All that is known about one file without running it."""

    path: Path
    models: tuple[Model, ...] = ()
    inference: tuple[Call, ...] = ()
    training: tuple[TrainingCall, ...] = ()
    steps: tuple[TrainingStep, ...] = ()
    dataloaders: tuple[DataLoader, ...] = ()
    optimizers: tuple[Optimizer, ...] = ()
    devices: tuple[DeviceUse, ...] = ()
    unclear: tuple[Unclear, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing was found, and nothing stayed unclear."""
        return self == Analysis(path=self.path)


# --- plans and patches ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Feature:
    """One feature as asked for: its name, its value where it takes one (`batch_size=32`), and settings within it."""

    name: str
    value: str | None = None
    settings: tuple[tuple[str, Setting], ...] = ()
    """Keyword arguments of the runtime's call, by name: `exclude`, and what the engine offers (`alpha`)."""

    def __str__(self) -> str:
        return "".join([self._head, *(f":{name}={text}" for name, value in self.settings for text in _texts(value))])

    @property
    def short(self) -> str:
        """The same, with a count and a digest in the place of what would be long; for names of variants."""
        return "".join([self._head, *(f":{name}={_short(value)}" for name, value in self.settings)])

    @property
    def _head(self) -> str:
        return self.name if self.value is None else f"{self.name}={self.value}"


def _texts(value: Setting) -> tuple[str, ...]:
    """A setting as people write it; several values are said one after the other."""
    return value if isinstance(value, tuple) else (str(value).lower() if isinstance(value, bool) else str(value),)


def _short(value: Setting) -> str:
    texts = _texts(value)
    if len(texts) == 1 and len(texts[0]) <= _LONGEST_SETTING:
        return texts[0]
    return f"{len(texts)}~{hashlib.sha256(repr(texts).encode()).hexdigest()[:6]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One variant to try: features in the order in which they apply, and the engine that runs the model."""

    features: tuple[Feature, ...]
    """Named features and what they imply, in order."""
    backend: str
    skipped: str = ""
    """Why this variant cannot be tried here, in words; empty when it can."""

    @property
    def id(self) -> str:
        """Stable and readable: `bf16+channels_last+compile`. Long settings of features are shortened."""
        return "+".join(feature.short for feature in sorted(self.features, key=str))


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One edit that went into a patch: where (line of the original), who wants it, and why."""

    line: int
    author: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftAlone:
    """A place that a transform looked at and left as it is, and why."""

    line: int
    author: str
    reason: str


# --- runs -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a child process ended."""

    kind: Literal["ok", "crashed", "timed_out", "no_result", "no_calls", "unusable"]
    """`ok`: it gave figures; `crashed`: the script raised or exited with an error; `timed_out`: the time limit came;
    `no_result`: it vanished without a result (killed, out of memory); `no_calls`: it ended well, but no probed call was
    reached; `unusable`: the environment is wrong (torch missing, say)."""
    code: int | None = None
    """Exit status; negative: the signal that ended it."""
    message: str = ""
    """One sentence."""
    stderr_tail: str = ""
    """The last lines of standard error, the script's own traceback among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteTiming:
    """The timings of one site in one process, in seconds, in the order in which they were taken."""

    site: str
    kind: Literal["inference", "training"]
    """`training`: one sample is a whole step, from the first forward to the end of the optimizer's step."""
    calls: int
    """How often the script itself reached the site (up to where the run was stopped)."""
    warmup: tuple[float, ...]
    samples: tuple[float, ...]
    items: int | None = None
    """Samples of data in one call (the leading dimension of its first tensor), where it is the same in all."""
    cpu: tuple[float, ...] = ()
    """CPU time of each sample, all threads together."""
    waited: tuple[float, ...] = ()
    """How long the threads had to wait for a core in each sample, all together."""
    pace: tuple[float, ...] = ()
    """How fast the processor was in each sample: seconds that a small piece of work took beside it, always the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """What could be seen, while the script ran, of the features at work."""

    inference_mode: bool = False
    grad_enabled: bool = False
    autocast: str = ""
    """Dtype of an active autocast at the probed calls: `bfloat16`, or empty."""
    dtypes: frozenset[str] = frozenset()
    """Dtypes of floating-point outputs of leaf modules: `float32`, `bfloat16`."""
    channels_last_outputs: int = 0
    """Convolutions whose output was stored channels-last."""
    quantized_modules: int = 0
    graphs_compiled: int = 0
    frozen_graphs: int = 0
    """Graphs that Inductor compiled with freezing."""
    scripted: bool = False
    fused_optimizers: int = 0
    extension_layers: int = 0
    """Layers that Intel Extension for PyTorch has put in the place of PyTorch's own."""
    batch_sizes: frozenset[int] = frozenset()
    cuda_used: bool = False
    accelerated: str = ""
    """What `neural_coder.runtime` ran the probed model with: `engine/precision`; empty when it ran the original."""
    fallback: str = ""
    """Why the runtime ran the original, in words."""
    inaccurate: bool = False
    """The runtime refused an engine's answers, because they differ too much from the original's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How the outputs of a run differ from those of the baseline, over the captured calls."""

    calls: int
    """Calls compared."""
    same_inputs: bool
    """Every compared call got the same inputs as in the baseline, to the bit."""
    rows: int
    """Rows of logits over all calls (0: no output looked like logits)."""
    top1_agreement: float | None
    """Share of rows with the same largest entry; None without logits."""
    relative_error: float | None
    """||variant - baseline|| / ||baseline|| over all floating-point outputs (the largest of all calls)."""
    exact_agreement: float | None
    """Share of equal entries among integer and text outputs (tokens, labels); None without such outputs."""
    not_finite: int
    """Calls with NaN or infinity where the baseline had none."""
    entries: int = 0
    """Integer and text outputs that `exact_agreement` is the share of."""
    degenerate: str = ""
    """Why the outputs prove nothing, in words (constant, no outputs, NaN in the baseline, ...); empty when they do."""
    structure: str = ""
    """How the structure of the outputs differs from the baseline's, in words; empty when it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeFrame:
    """A line of the project that was being executed."""

    path: Path
    line: int
    function: str
    """Dotted name; `<module>` at top level."""
    call: Span | None = None
    """The call that was going on; None where the interpreter does not know (before Python 3.11)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedMode:
    """Calls of a model from one place in one mode."""

    training: bool
    """The model was in training mode."""
    grad_mode: Literal["enabled", "no_grad", "inference_mode"]
    autocast: str = ""
    """Dtype of an active autocast."""
    calls: int
    seconds: float
    """In all of these calls."""
    backward: bool = False
    """Gradients were computed through a result."""
    signatures: tuple[str, ...] = ()
    """What the first calls were given: `float32[4, 3, 224, 224]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedCall:
    """A place from where the script was seen to call a model (not from within another model)."""

    frames: tuple[CodeFrame, ...]
    """Of the project, the innermost first: the way to the call. In a thread, the way to its start follows."""
    through: tuple[str, ...] = ()
    """Code between the innermost frame and the model, the one next to the project first: libraries, and code made at
    run time (`<string>:1 <module>`)."""
    name: str
    """Of the model's class."""
    home: str
    """The module that the class is defined in."""
    form: Literal["", "compiled", "scripted"] = ""
    direct: bool = False
    """`forward` was called, not the model itself."""
    probed: bool = False
    """It happened within a probed call."""
    built: tuple[int, ...] = ()
    """`ObservedModel.number` of the models that were called, where their construction was seen."""
    modes: tuple[ObservedMode, ...]

    @property
    def calls(self) -> int:
        """How many there were."""
        return sum(mode.calls for mode in self.modes)

    @property
    def seconds(self) -> float:
        """How long they took together."""
        return sum(mode.seconds for mode in self.modes)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedModel:
    """A place where the script was seen to build a model."""

    number: int
    frames: tuple[CodeFrame, ...]
    """As in `ObservedCall`."""
    through: tuple[str, ...] = ()
    name: str
    home: str
    bases: tuple[str, ...] = ()
    """Names of the class and its bases."""
    form: Literal["", "compiled", "scripted"] = ""
    how: Literal["built", "restored"] = "built"
    """`restored`: from a file or as a copy."""
    count: int
    """How many were built there."""
    parameters: int | None
    """None: it was gone before it could be looked at."""
    called: bool
    """It, a part of it, or something that holds it was called."""
    part_of: int | None = None
    """Number of a model that it became a part of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was seen of the script's models while it ran."""

    seconds: float
    """How long the script ran."""
    calls: tuple[ObservedCall, ...] = ()
    models: tuple[ObservedModel, ...] = ()
    reached: Mapping[str, int] = field(default_factory=dict)
    """By the name of a site: how often the script came to it, from outside of models and in its first process."""
    reached_within: frozenset[str] = frozenset()
    """Names of sites that it came to from within a model's call."""
    compiled_graphs: int = 0
    """Graphs that `torch.compile` made; calls inside of compiled functions cannot be seen."""
    truncated: bool = False
    """There were more places than were kept."""
    problems: tuple[str, ...] = ()
    """What could not be looked at, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A layer that multiplies with weights, and what 8-bit integers in this layer alone do to the answers."""

    name: str
    """Qualified name of the module, as `accelerate(exclude=...)` takes it."""
    kind: str
    """Its class."""
    error: float
    """Relative error of its own output."""
    impact: float | None = None
    """Relative error of the whole model's output; None: there was no time to find out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure of the user's own that tells how good a script's answers are."""

    name: str
    pattern: str = ""
    """Regular expression over the script's output whose first group is the value; the last match counts."""
    file: Path | None = None
    """Where there is no pattern: the Python file that holds `function`."""
    function: str = ""
    """Called with the script's global names once it has ended; gives a number, or one for each sample."""
    lower_is_better: bool = False
    allowed: float = 0.01
    """Largest loss against the original, as a share of its value: 0.01 is one per cent."""
    absolute: bool = False
    """`allowed` is in the metric's own unit instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricValue:
    """What one run gave for a metric."""

    name: str
    value: float | None
    """None: there is none, and `problem` says why."""
    samples: tuple[float, ...] = ()
    """One for each sample of data, where a function tells; neighbours are averaged where there are very many."""
    count: int = 0
    """How many samples of data there were."""
    calls_model: bool = False
    """The function called a model itself, instead of looking at what the script has computed."""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One child process: raw figures, and how it ended. Never changed, never averaged in place."""

    ending: Ending
    timings: tuple[SiteTiming, ...] = ()
    losses: tuple[float, ...] = ()
    """Loss at each backward of the first steps."""
    comparison: Comparison | None = None
    witness: Witness = field(default_factory=Witness)
    metrics: tuple[MetricValue, ...] = ()
    """The user's metrics, in their order."""
    ended_by_itself: bool = False
    """The script ran to its end (False: stopped after enough samples)."""
    wall_seconds: float = 0.0
    """The whole process."""
    loop_seconds: float = 0.0
    """From the first probed call to the last one's end, in the script's own run."""
    model_seconds: float = 0.0
    """Spent inside probed calls in that window."""
    peak_memory_bytes: int = 0
    disturbed: float = 0.0
    """Share of the run's time that its threads waited for a core that other programs had (0 on a quiet machine)."""
    stolen: float = 0.0
    """Share of the cores' time that the hypervisor gave to other machines; part of `disturbed`."""
    versions: Mapping[str, str] = field(default_factory=dict)
    observed: Observation | None = None
    """What was seen of the models, where that was asked for."""
    cores: tuple[int, ...] = ()
    """Logical CPUs that the process could run on; empty where the system does not tell."""
    threads: int | None = None
    """Threads that PyTorch used inside of operations; None without PyTorch."""
    operators: tuple[Operator, ...] = ()
    """What quantizing each operator alone would do, where that was asked for."""

    @property
    def ok(self) -> bool:
        """Whether the run gave figures."""
        return self.ending.kind == "ok"

    @property
    def metric(self) -> float | None:
        """The value of the user's first metric."""
        return self.metrics[0].value if self.metrics else None


# --- verdicts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A median and the bounds of its 95 % interval."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one call costs, in more detail: medians over processes, each of its undisturbed samples."""

    cpu_seconds: float | None
    """CPU time, all threads together."""
    p50: float
    p90: float
    p99: float
    """Wall seconds that so many per cent of the calls stay below."""
    throughput: float | None
    """Samples of data per second; None where the size of the batches is unknown."""
    first_call_seconds: float | None
    """The first call of the first process: with all that is loaded, compiled and converted in it."""
    loop_seconds: float | None
    """From the first call to the end of the last one; of a variant by the original's loop and the model's share of it.
    None where runs were stopped before its end."""


Status = Literal["faster", "same", "slower", "undecided", "inaccurate", "unverified", "no_effect", "failed", "skipped"]
"""`undecided`: the machine was too noisy to tell whether there is a gain; `same`: there is none worth having."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """What is known about the answers of a variant."""

    criterion: str
    """In words: `top-1 agreement`, `relative error of outputs`, `metric accuracy`, `loss curve`."""
    verified: bool
    """Evidence was there and the baseline repeats itself."""
    kept: bool
    """The criterion holds."""
    loss: float | None
    """Loss against the baseline: as a share of its value (0.01 is one per cent), or `absolute`; None: no evidence."""
    allowed: float
    absolute: bool = False
    """`loss` and `allowed` are in the metric's own unit."""
    loss_low: float | None = None
    loss_high: float | None = None
    """95 % interval of the loss (an improvement is negative); None where no samples tell."""
    relative_error: float | None = None
    baseline_value: float | None = None
    value: float | None = None
    reason: str = ""
    metrics: tuple[Accuracy, ...] = ()
    """The same for each of the user's metrics; the fields above are those of the one that decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one variant."""

    plan: Plan
    status: Status
    reason: str
    """In words, also for the good ends."""
    speedup: Interval | None = None
    seconds_per_call: Interval | None = None
    accuracy: Accuracy | None = None
    startup_seconds: float | None = None
    """What the variant costs once, beyond the baseline: compilation, conversion, warm-up."""
    break_even_calls: int | None = None
    """Calls after which that cost is earned back; None when it never is."""
    peak_memory_bytes: int | None = None
    rounds: int = 0
    idle: str = ""
    """Which of several features did nothing at run time, in words; the figures are those of the others."""
    figures: Figures | None = None
    diff: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """What a variant must fulfil to be recommended."""

    relative_loss: float = 0.01
    """Largest loss against the baseline where there are no metrics, relative: 0.01 is one per cent."""
    metrics: tuple[Metric, ...] = ()
    """The user's own, all of which must be kept; none: agreement of outputs (inference) or of the loss curve
    (training)."""
    minimum_gain: float = 1.03
    """The whole interval of the speed-up must lie beyond this (and below its inverse to count as slower)."""


# --- run configurations ---------------------------------------------------------------------------------------------

Mode = Literal["latency", "throughput", "multi-instance"]
SweepStatus = Literal["measured", "inaccurate", "unverified", "declined", "failed", "not_measured"]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RunConfiguration:
    """How a script is run: in how many processes at once, on how many cores each, and on how large batches."""

    instances: int = 1
    cores_per_instance: int
    threads: int
    """Of each instance, inside of operations."""
    batch_size: int | None = None
    """Items in one call of the model; None: as the script makes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationResult:
    """What became of one variant in one run configuration."""

    configuration: RunConfiguration
    variant: str | None
    """Id of the plan; None: the original."""
    status: SweepStatus
    """`declined`: the script cannot be run so; `not_measured`: the time was over before."""
    reason: str = ""
    """In words; also what the reader should know of a figure."""
    latency: Interval | None = None
    """Seconds for one call, of the median instance."""
    slowest: Interval | None = None
    """The same, of the slowest instance."""
    throughput: Interval | None = None
    """Per second, of all instances together, in the sweep's unit."""
    rounds: int = 0
    """How often it was run; fewer than three give no interval of their own."""
    batch_by: str = ""
    """How the script got the batch size, in words."""
    commands: tuple[str, ...] = ()
    """What starts the instances so by hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The original and the best variants in several run configurations."""

    mode: Mode | None
    unit: Literal["items", "calls", "steps"]
    """What throughput counts."""
    results: tuple[ConfigurationResult, ...]
    """The first is the original as it is usually run: one instance on all cores."""
    best_latency: ConfigurationResult | None
    best_throughput: ConfigurationResult | None
    notes: tuple[str, ...] = ()
