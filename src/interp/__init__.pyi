"""Written by tools/write_stub.py from the commands' signatures."""

from typing import Any, Literal

from IPython.core.interactiveshell import InteractiveShell

from interp.chats import Turn as Turn
from interp.claim_language import Claim as Claim
from interp.engine.model.loaded import LoadedModel as LoadedModel
from interp.engine.model.loaded import LoadedModel as _LoadedModel
from interp.errors import InputError as InputError
from interp.errors import OutOfMemory as OutOfMemory
from interp.interface.commands import Table as _Table
from interp.interface.registry import technique as technique
from interp.interface.saved import load_result as load_result
from interp.methods._shared.circuit.file import load_circuit as load_circuit
from interp.methods._shared.circuit.report import CircuitReport as _CircuitReport
from interp.methods._shared.circuit.result import CircuitResult as _CircuitResult
from interp.methods._shared.circuit.selfcheck_result import SelfcheckResult as _SelfcheckResult
from interp.methods._shared.claims.repeated_result import ClaimsResult as _ClaimsResult
from interp.methods._shared.claims.result import ClaimResult as _ClaimResult
from interp.methods._shared.diff_result import DiffResult as _DiffResult
from interp.methods._shared.feature_labels import FeaturesLabelResult as _FeaturesLabelResult
from interp.methods._shared.feature_labels import load_labels as load_labels
from interp.methods._shared.feature_result import FeatureResult as _FeatureResult
from interp.methods._shared.features_result import FeaturesResult as _FeaturesResult
from interp.methods._shared.features_train_result import FeaturesTrainResult as _FeaturesTrainResult
from interp.methods._shared.generate_result import GenerateResult as _GenerateResult
from interp.methods._shared.generate_trace_result import GenerateTraceResult as _GenerateTraceResult
from interp.methods._shared.investigation.result import InvestigateResult as _InvestigateResult
from interp.methods._shared.loss_result import LossResult as _LossResult
from interp.methods._shared.many.attention_result import AttentionManyResult as _AttentionManyResult
from interp.methods._shared.many.dla_result import DLAManyResult as _DLAManyResult
from interp.methods._shared.many.lens_result import LensManyResult as _LensManyResult
from interp.methods._shared.many.predict_result import PredictManyResult as _PredictManyResult
from interp.methods._shared.many.saliency_result import SaliencyManyResult as _SaliencyManyResult
from interp.methods._shared.patching.result import PatchingResult as _PatchingResult
from interp.methods._shared.saliency_result import SaliencyResult as _SaliencyResult
from interp.methods._shared.samples_result import SamplesResult as _SamplesResult
from interp.methods._shared.trace.file import load_graph as load_graph
from interp.methods._shared.trace.result import TraceResult as _TraceResult
from interp.methods._shared.trace.score_result import ScoreResult as _ScoreResult
from interp.methods.checks.task import TaskResult as _TaskResult
from interp.methods.heads.attention import AttentionResult as _AttentionResult
from interp.methods.heads.compose import ComposeResult as _ComposeResult
from interp.methods.heads.heads import HeadsResult as _HeadsResult
from interp.methods.heads.ov_qk import OVQKResult as _OVQKResult
from interp.methods.patching.ablate import AblationResult as _AblationResult
from interp.methods.patching.mediate import MediationResult as _MediationResult
from interp.methods.patching.path import PathResult as _PathResult
from interp.methods.readouts.dla import DLAResult as _DLAResult
from interp.methods.readouts.lens import LensResult as _LensResult
from interp.methods.readouts.lens_train import LensTrainResult as _LensTrainResult
from interp.methods.readouts.neurons import NeuronsResult as _NeuronsResult
from interp.methods.readouts.probe import ProbeResult as _ProbeResult
from interp.methods.readouts.saliency_of_classifier import saliency_of_classifier as saliency_of_classifier
from interp.methods.text.predict import PredictResult as _PredictResult
from interp.methods.text.steer import SteeringResult as _SteeringResult
from interp.methods.text.tokens import TokensResult as _TokensResult
from interp.results import Result as Result
from interp.results.base import Result as _Result
from interp.results.comparison import compare as compare
from interp.results.verified import Verified as _Verified
from interp.selection import selection as selection
from interp.sites import Site as Site
from interp.spans import Mark as Mark
from interp.spec import Intervention as Intervention
from interp.spec import Metric as Metric
from interp.spec import Pair as Pair
from interp.spec import Prompt as Prompt

model: LoadedModel

def ablate(
    *body: Any,
    heads: Any = ...,
    mlps: Any = ...,
    knockout: Any = ...,
    at: Any = ...,
    direction: Any = ...,
    layer: Any = ...,
    site: Any = ...,
    mode: Literal["zero", "mean", "resample", "noise"] = ...,
    metric: Any = ...,
    seed: int = ...,
    feature: Any = ...,
    features: Any = ...,
    task: Any = ...,
    pairs: Any = ...,
    n: Any = ...,
    corruption: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    text: Any = ...,
    column: Any = ...,
    truncate: Any = ...,
    interventions: Any = ...,
    out: Any = ...,
    dry_run: Any = ...,
    model: Any = ...,
    over: Any = ...,
    **more: Any,
) -> _AblationResult: ...
def attention(
    prompt: Any = ...,
    *,
    layer: Any = ...,
    head: Any = ...,
    interventions: Any = ...,
    by: Literal["position", "span", "end"] | None = ...,
    pairs: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    truncate: Any = ...,
    task: Any = ...,
    n: Any = ...,
    seed: Any = ...,
    text: Any = ...,
    column: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _AttentionResult | _AttentionManyResult: ...
def circuit(
    *body: Any,
    method: Literal["eap-ig", "eap", "acdc", "exact"] = ...,
    edges: int | None = ...,
    threshold: float | None = ...,
    level: Literal["edge", "head"] = ...,
    steps: int | None = ...,
    among: int | None = ...,
    ablation: Literal["corrupted", "mean", "zero"] = ...,
    metric: Any = ...,
    positions: bool = ...,
    align: Literal["last", "mean", "each"] = ...,
    task: Any = ...,
    n: Any = ...,
    seed: Any = ...,
    corruption: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    interventions: Any = ...,
    out: Any = ...,
    dry_run: Any = ...,
    model: Any = ...,
    over: Any = ...,
    **more: Any,
) -> _CircuitResult: ...
def claim(
    claim: Any,
    *,
    rank: int | None = ...,
    controls: Any = ...,
    variables: Any = ...,
    becomes: Any = ...,
    features: Any = ...,
    seed: int = ...,
    prompts: Any = ...,
    pairs: Any = ...,
    task: Any = ...,
    n: Any = ...,
    text: Any = ...,
    column: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _ClaimResult: ...
def claims(files: Any = ..., *, model: Any = ...) -> _ClaimsResult: ...
def clear() -> _Table: ...
def compose(*, kind: Literal["q", "k", "v"] | None = ..., model: Any = ..., over: Any = ...) -> _ComposeResult: ...
def connect(
    where: Any, count: int | None = ..., *, gpus: float | None = ..., name: str | None = ..., trust: bool = ...
) -> _Table: ...
def diff(
    *body: Any,
    what: Literal["weights", "activations"] = ...,
    metric: Any = ...,
    share: float = ...,
    tokens: int = ...,
    edges: int | None = ...,
    task: Any = ...,
    pairs: Any = ...,
    n: Any = ...,
    seed: Any = ...,
    corruption: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    text: Any = ...,
    column: Any = ...,
    truncate: Any = ...,
    over: Any = ...,
    **more: Any,
) -> _DiffResult: ...
def disconnect(*, end: bool = ...) -> _Table: ...
def dla(
    prompt: Any = ...,
    *,
    answer: Any = ...,
    wrong: Any = ...,
    position: int | None = ...,
    top: int = ...,
    features: Any = ...,
    interventions: Any = ...,
    by: Literal["span", "position", "end"] | None = ...,
    pairs: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    truncate: Any = ...,
    task: Any = ...,
    n: Any = ...,
    seed: Any = ...,
    text: Any = ...,
    column: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _DLAResult | _DLAManyResult: ...
def feature(
    which: Any,
    texts: Any,
    *,
    context: int = ...,
    optimise: bool = ...,
    length: int = ...,
    steps: int = ...,
    seed: int = ...,
    features: Any = ...,
    text: Any = ...,
    column: Any = ...,
    n: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    truncate: Any = ...,
    interventions: Any = ...,
    dry_run: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _FeatureResult: ...
def features(*, model: Any = ..., over: Any = ...) -> _FeaturesResult: ...
def features_label(
    which: Any,
    texts: Any,
    *,
    above: float = ...,
    least: float = ...,
    sets: Any = ...,
    seed: int = ...,
    features: Any = ...,
    text: Any = ...,
    column: Any = ...,
    n: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    truncate: Any = ...,
    interventions: Any = ...,
    dry_run: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _FeaturesLabelResult: ...
def features_load(
    path: Any,
    *,
    site: Any = ...,
    layer: Any = ...,
    text: Any = ...,
    name: str | None = ...,
    labels: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _FeaturesResult: ...
def features_train(
    texts: Any,
    *,
    site: Literal["mlp", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "neuron"] = ...,
    layer: Any = ...,
    width: int = ...,
    k: int = ...,
    kind: Literal["topk", "batchtopk"] = ...,
    skip: bool = ...,
    steps: int = ...,
    batch: int = ...,
    rate: float | None = ...,
    out: str | None = ...,
    seed: int = ...,
    text: Any = ...,
    column: Any = ...,
    n: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    truncate: Any = ...,
    dry_run: Any = ...,
    model: Any = ...,
) -> _FeaturesTrainResult: ...
def generate(
    prompt: Any,
    *,
    n: int = ...,
    temperature: float = ...,
    top_k: int | None = ...,
    top_p: float | None = ...,
    seed: int = ...,
    samples: int | None = ...,
    interventions: Any = ...,
    at: Literal["all", "prompt", "new"] = ...,
    trace: bool = ...,
    features: Any = ...,
    direction: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    truncate: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _GenerateResult | _SamplesResult | _GenerateTraceResult: ...
def heads(
    *,
    n: int | None = ...,
    seed: int = ...,
    relation: Literal["subject-verb", "modifier"] | None = ...,
    task: Any = ...,
    from_: Any = ...,
    to: Any = ...,
    prompts: Any = ...,
    interventions: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _HeadsResult: ...
def help(command: Any = ..., *, json: bool = ...) -> _Result: ...
def investigate(
    *body: Any,
    target: Any = ...,
    against: Any = ...,
    twin: str | None = ...,
    candidates: int = ...,
    heads: int = ...,
    verify: int = ...,
    edges: int | None = ...,
    seed: int = ...,
    task: Any = ...,
    pairs: Any = ...,
    n: Any = ...,
    corruption: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    text: Any = ...,
    column: Any = ...,
    truncate: Any = ...,
    model: Any = ...,
    over: Any = ...,
    **more: Any,
) -> _InvestigateResult: ...
def lens(
    prompt: Any = ...,
    *,
    at: Literal["pre", "mid", "post"] = ...,
    target: Any = ...,
    wrong: Any = ...,
    kind: Literal["logit", "tuned", "jacobian"] = ...,
    from_: str | None = ...,
    layer: Any = ...,
    position: Any = ...,
    top: int = ...,
    features: Any = ...,
    interventions: Any = ...,
    by: Literal["span", "position", "end"] | None = ...,
    pairs: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    truncate: Any = ...,
    task: Any = ...,
    n: Any = ...,
    seed: Any = ...,
    text: Any = ...,
    column: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _LensResult | _LensManyResult: ...
def lens_train(
    texts: Any,
    *,
    out: str | None = ...,
    layer: Any = ...,
    steps: int = ...,
    batch: int = ...,
    rate: float = ...,
    seed: int = ...,
    text: Any = ...,
    column: Any = ...,
    n: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    truncate: Any = ...,
    dry_run: Any = ...,
    model: Any = ...,
) -> _LensTrainResult: ...
def loss(
    texts: Any,
    *,
    top: int = ...,
    interventions: Any = ...,
    against: Any = ...,
    text: Any = ...,
    column: Any = ...,
    n: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    truncate: Any = ...,
    dry_run: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _LossResult: ...
def mediate(
    *body: Any,
    site: Any = ...,
    head: Any = ...,
    feature: Any = ...,
    features: Any = ...,
    layer: Any = ...,
    metric: Any = ...,
    correction: Literal["holm", "fdr_bh", "bonferroni", "none"] = ...,
    task: Any = ...,
    n: Any = ...,
    seed: Any = ...,
    corruption: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    interventions: Any = ...,
    out: Any = ...,
    dry_run: Any = ...,
    model: Any = ...,
    over: Any = ...,
    **more: Any,
) -> _MediationResult: ...
def models() -> _Table: ...
def neurons(
    which: Any,
    texts: Any,
    *,
    top: int = ...,
    context: int = ...,
    lowest: bool = ...,
    cluster: Literal["umap", "tsne"] | None = ...,
    of: Literal["neurons", "tokens"] = ...,
    points: int = ...,
    optimise: bool = ...,
    length: int = ...,
    steps: int = ...,
    seed: int = ...,
    text: Any = ...,
    column: Any = ...,
    n: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    truncate: Any = ...,
    interventions: Any = ...,
    dry_run: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _NeuronsResult: ...
def ov(
    head: Any, *, tokens: Any = ..., top: int = ..., svd: int = ..., model: Any = ..., over: Any = ...
) -> _OVQKResult: ...
def patch(
    *body: Any,
    site: Any = ...,
    by: Literal["layer", "head", "position", "head-position", "neuron", "span", "feature", "feature-position"]
    | None = ...,
    metric: Any = ...,
    direction: Literal["denoise", "noise"] = ...,
    layer: Any = ...,
    from_model: Any = ...,
    method: Literal["exact", "attribution"] = ...,
    steps: int = ...,
    verify: int = ...,
    align: Literal["last", "mean", "each"] = ...,
    features: Any = ...,
    task: Any = ...,
    n: Any = ...,
    seed: Any = ...,
    corruption: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    interventions: Any = ...,
    out: Any = ...,
    dry_run: Any = ...,
    model: Any = ...,
    over: Any = ...,
    **more: Any,
) -> _PatchingResult: ...
def path(
    *body: Any,
    from_: Any = ...,
    to: Any = ...,
    at: Any = ...,
    by: Literal["path", "span"] = ...,
    freeze: Literal["all", "heads", "none"] = ...,
    metric: Any = ...,
    direction: Literal["denoise", "noise"] = ...,
    features: Any = ...,
    task: Any = ...,
    n: Any = ...,
    seed: Any = ...,
    corruption: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    interventions: Any = ...,
    out: Any = ...,
    dry_run: Any = ...,
    model: Any = ...,
    over: Any = ...,
    **more: Any,
) -> _PathResult: ...
def predict(
    prompt: Any = ...,
    *,
    top: int = ...,
    answer: Any = ...,
    interventions: Any = ...,
    pairs: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    truncate: Any = ...,
    task: Any = ...,
    n: Any = ...,
    seed: Any = ...,
    text: Any = ...,
    column: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _PredictResult | _PredictManyResult: ...
def probe(
    texts: Any = ...,
    labels: Any = ...,
    *,
    text: str | None = ...,
    column: str = ...,
    label: str = ...,
    site: Any = ...,
    position: Literal["last", "mean"] = ...,
    at: Any = ...,
    layer: Any = ...,
    task: Any = ...,
    n: int = ...,
    folds: int = ...,
    shuffles: int = ...,
    strength: float = ...,
    seed: int = ...,
    bos: bool | None = ...,
    truncate: bool = ...,
    features: Any = ...,
    interventions: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _ProbeResult: ...
def qk(
    head: Any,
    *,
    tokens: Any = ...,
    top: int = ...,
    svd: int = ...,
    offset: int = ...,
    model: Any = ...,
    over: Any = ...,
) -> _OVQKResult: ...
def saliency(
    prompt: Any = ...,
    *,
    method: Any = ...,
    answer: Any = ...,
    wrong: Any = ...,
    metric: Literal["logit-diff", "logit", "logprob", "prob"] | None = ...,
    counterfactual: Any = ...,
    baseline: Any = ...,
    steps: int = ...,
    samples: int = ...,
    interventions: Any = ...,
    by: Literal["span", "position", "end"] | None = ...,
    pairs: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    truncate: Any = ...,
    task: Any = ...,
    n: Any = ...,
    seed: Any = ...,
    text: Any = ...,
    column: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _SaliencyResult | _SaliencyManyResult: ...
def selfcheck(
    *,
    program: Literal["reverse", "histogram", "induction", "ioi"] | None = ...,
    ablation: Literal["corrupted", "mean", "zero"] | None = ...,
    n: int = ...,
    seed: int = ...,
) -> _SelfcheckResult: ...
def status() -> _Table: ...
def steer(
    prompt: Any,
    *,
    layer: int | None = ...,
    toward: Any = ...,
    against: Any = ...,
    direction: Any = ...,
    strength: float = ...,
    sweep: Any = ...,
    n: int = ...,
    site: Any = ...,
    at: Any = ...,
    answer: Any = ...,
    wrong: Any = ...,
    metric: Any = ...,
    temperature: float = ...,
    top_k: int | None = ...,
    top_p: float | None = ...,
    seed: int = ...,
    template: Any = ...,
    bos: Any = ...,
    truncate: Any = ...,
    interventions: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _SteeringResult: ...
def task(
    *body: Any,
    task: Any = ...,
    n: Any = ...,
    seed: Any = ...,
    corruption: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    interventions: Any = ...,
    model: Any = ...,
    over: Any = ...,
    **more: Any,
) -> _TaskResult: ...
def tokens(
    prompt: Any, *, template: Any = ..., bos: Any = ..., truncate: Any = ..., model: Any = ..., over: Any = ...
) -> _TokensResult: ...
def trace(
    prompt: Any,
    *,
    target: Any = ...,
    against: Any = ...,
    position: int | None = ...,
    nodes: float = ...,
    edges: float = ...,
    most: int = ...,
    group: Literal["auto"] | None = ...,
    head: Any = ...,
    from_: int | None = ...,
    to: int | None = ...,
    features: Any = ...,
    template: Any = ...,
    bos: Any = ...,
    truncate: Any = ...,
    dry_run: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _TraceResult | _ScoreResult: ...
def unload(name: Any = ...) -> _Table: ...
def use(name: Any) -> _LoadedModel: ...
def validate(
    circuit: Any,
    *,
    on: Literal["fresh", "same"] | None = ...,
    n: int | None = ...,
    seed: int | None = ...,
    random: int = ...,
    top: int = ...,
    metric: Any = ...,
    paraphrases: Any = ...,
    control: Any = ...,
    interventions: Any = ...,
    dry_run: Any = ...,
    model: Any = ...,
    over: Any = ...,
) -> _CircuitReport | _TraceResult: ...
def verify(result: Any, *, model: Any = ...) -> _Verified: ...
def workers() -> _Table: ...
def load(
    source: Any = ...,
    *,
    tokenizer: Any = ...,
    device: str | None = ...,
    dtype: str | None = ...,
    revision: str | None = ...,
    remote_code: bool = ...,
    adapter: Any = ...,
    max_memory: str | None = ...,
    device_map: Any = ...,
    name: str | None = ...,
    copy: bool = ...,
    spill: float | None = ...,
    on_step: Any = ...,
) -> LoadedModel: ...
def load_ipython_extension(shell: InteractiveShell) -> None: ...
def unload_ipython_extension(shell: InteractiveShell) -> None: ...
