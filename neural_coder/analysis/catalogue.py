"""What well-known libraries offer, as data: which names build models, loaders and optimizers, and which only look so.

`BUILDERS` are tried from top to bottom; a pattern matches the whole dotted name (aliases resolved) as in `fnmatch`,
and the first match decides. `gives` is what calling the name yields; `layers` what such a model is known to hold.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from fnmatch import translate
from typing import Literal


def words(text: str) -> frozenset[str]:
    """The words of a text as a set; keeps long lists of names readable."""
    return frozenset(text.split())


Gives = Literal["module", "pipeline", "nothing"]

LIBRARIES = words(
    """
    torch torchvision torchaudio torchtext timm transformers diffusers sentence_transformers open_clip clip
    segmentation_models_pytorch efficientnet_pytorch efficientnet_lite_pytorch facenet_pytorch ultralytics
    pytorch_lightning lightning accelerate peft pretrainedmodels torch_geometric monai detectron2 mmcv
    mmengine mmdet fairseq speechbrain nemo kornia deepspeed apex ipex intel_extension_for_pytorch torchao
    optimum bitsandbytes fastai ignite catalyst allennlp flair whisper neural_coder TTS torchrl gpytorch
    pyannote bert_score laion_clap resnet_pytorch pytorch_pretrained_bert pytorch_transformers sam2
    segment_anything vit_pytorch x_transformers torchmetrics stable_baselines3 simpletransformers autogluon
    """
)
"""Top-level packages that are never looked up among the user's files; without any of them no file has sites."""


@dataclass(frozen=True, slots=True)
class Builder:
    """What calling a name gives."""

    pattern: str
    gives: Gives
    layers: frozenset[str] | None = None


_CONV = frozenset({"Conv2d", "Linear", "BatchNorm2d"})
_LINEAR = frozenset({"Linear", "LayerNorm", "Embedding"})

BUILDERS = (
    # torchvision: everything that is called there builds a model, but for these.
    Builder("torchvision.models.*_Weights*", "nothing"),
    Builder("torchvision.models.list_models", "nothing"),
    Builder("torchvision.models.get_model_*", "nothing"),
    Builder("torchvision.models.get_weight", "nothing"),
    Builder("torchvision.models._*", "nothing"),
    Builder("torchvision.models.*_utils.*", "nothing"),
    Builder("torchvision.models.*get_graph_node_names", "nothing"),
    Builder("torchvision.models.*AnchorGenerator", "nothing"),
    Builder("torchvision.models.*vit_*", "module", frozenset({"Conv2d", "Linear", "LayerNorm"})),
    Builder("torchvision.models.*swin*", "module", frozenset({"Conv2d", "Linear", "LayerNorm"})),
    Builder("torchvision.models.*", "module", _CONV),
    Builder("timm.create_model", "module", frozenset({"Conv2d", "Linear"})),
    Builder("timm.models.create_model", "module", frozenset({"Conv2d", "Linear"})),
    Builder("timm.models.*load_checkpoint", "nothing"),
    Builder("timm.models.*load_state_dict*", "nothing"),
    Builder("timm.models.*_load", "nothing"),
    Builder("timm.models.*resume_checkpoint", "nothing"),
    Builder("timm.models.*is_model*", "nothing"),
    Builder("timm.models.*list_m*", "nothing"),
    Builder("timm.models.*safe_model_name", "nothing"),
    Builder("timm.models.*convert_*", "nothing"),
    Builder("timm.models.*", "module", frozenset({"Conv2d", "Linear"})),
    # transformers: models are told from their companions by their endings.
    Builder("transformers.pipeline", "pipeline"),
    Builder("transformers.pipelines.pipeline", "pipeline"),
    Builder("transformers.*TextGenerationPipeline", "pipeline"),
    Builder("transformers.*Pipeline", "pipeline"),
    Builder("transformers.*DataCollator*", "nothing"),
    Builder("transformers.*Dataset*", "nothing"),
    Builder("transformers.*Config", "nothing"),
    Builder("transformers.*Output*", "nothing"),
    Builder("transformers.*Tokenizer*", "nothing"),
    Builder("transformers.*Processor*", "nothing"),
    Builder("transformers.TF*", "nothing"),
    Builder("transformers.Flax*", "nothing"),
    Builder("transformers.*.TF*", "nothing"),
    Builder("transformers.*.Flax*", "nothing"),
    Builder("transformers.*ViT*Model", "module", frozenset({"Conv2d", "Linear", "LayerNorm"})),
    Builder("transformers.*ForImageClassification", "module", frozenset({"Conv2d", "Linear"})),
    Builder("transformers.*Model", "module", _LINEAR),
    Builder("transformers.*For[A-Z]*", "module", _LINEAR),
    Builder("transformers.*With*Head", "module", _LINEAR),
    Builder("transformers.*DoubleHeadsModel", "module", _LINEAR),
    Builder("optimum.*Pipeline", "nothing"),
    Builder("peft.get_peft_model", "module", _LINEAR),
    Builder("peft.PeftModel*", "module", _LINEAR),
    Builder("peft.AutoPeftModel*", "module", _LINEAR),
    Builder("pytorch_pretrained_bert.*BertAdam", "nothing"),
    Builder("pytorch_pretrained_bert.*Tokenizer", "nothing"),
    Builder("pytorch_pretrained_bert.*Model", "module", _LINEAR),
    Builder("pytorch_pretrained_bert.*For[A-Z]*", "module", _LINEAR),
    Builder("pytorch_transformers.*For[A-Z]*", "module", _LINEAR),
    Builder("pytorch_transformers.*Model", "module", _LINEAR),
    Builder("diffusers.*Scheduler*", "nothing"),
    Builder("diffusers.*SafetyChecker", "module", frozenset({"Conv2d", "Linear", "LayerNorm"})),
    Builder("diffusers.*Pipeline*", "pipeline"),
    Builder("diffusers.AutoPipeline*", "pipeline"),
    Builder("diffusers.*Model", "module", frozenset({"Conv2d", "Linear"})),
    Builder("diffusers.*Autoencoder*", "module", frozenset({"Conv2d", "Linear"})),
    Builder("sentence_transformers.*SentenceTransformer", "module", _LINEAR),
    Builder("sentence_transformers.*CrossEncoder", "module", _LINEAR),
    Builder("sentence_transformers.*SparseEncoder", "module", _LINEAR),
    # whole models from hubs and files
    Builder("torch.hub.load", "module"),
    Builder("torch.jit.load", "module"),
    Builder("torch.export.load", "nothing"),
    Builder("segmentation_models_pytorch.losses.*", "nothing"),
    Builder("segmentation_models_pytorch.utils.*", "nothing"),
    Builder("segmentation_models_pytorch.metrics.*", "nothing"),
    Builder("segmentation_models_pytorch.encoders.get_preprocessing_fn", "nothing"),
    Builder("segmentation_models_pytorch.encoders.get_encoder_names", "nothing"),
    Builder("segmentation_models_pytorch.create_model", "module", _CONV),
    Builder("segmentation_models_pytorch.*.[A-Z]*", "module", _CONV),
    Builder("segmentation_models_pytorch.[A-Z]*", "module", _CONV),
    Builder("open_clip.create_model", "module", frozenset({"Conv2d", "Linear"})),
    Builder("clip.model.build_model", "module", frozenset({"Conv2d", "Linear"})),
    Builder("efficientnet_pytorch.*EfficientNet", "module", _CONV),
    Builder("efficientnet_lite_pytorch.*EfficientNet", "module", _CONV),
    Builder("resnet_pytorch.*ResNet", "module", _CONV),
    Builder("facenet_pytorch.*MTCNN", "module", _CONV),
    Builder("facenet_pytorch.*InceptionResnetV1", "module", _CONV),
    Builder("pretrainedmodels.models.*", "module", _CONV),
    Builder("ultralytics.*YOLO*", "pipeline", _CONV),
    Builder("ultralytics.*RTDETR", "pipeline", _CONV),
    Builder("ultralytics.*SAM", "pipeline", _CONV),
    Builder("whisper.load_model", "module", frozenset({"Conv1d", "Linear"})),
    Builder("torchaudio.pipelines.*.get_model", "module"),
    Builder("torchaudio.models.decoder.*", "nothing"),
    Builder("torchaudio.models.*", "module"),
    Builder("torchtext.models.*.get_model", "module", _LINEAR),
    Builder("monai.networks.nets.*", "module", frozenset({"Conv2d", "Linear"})),
    Builder("torch_geometric.nn.models.*", "module"),
    Builder("torch_geometric.nn.*_pool*", "nothing"),
    Builder("torch_geometric.nn.*Conv", "module"),
    Builder("detectron2.modeling.build_model", "module", _CONV),
    Builder("detectron2.engine.DefaultPredictor", "pipeline", _CONV),
    Builder("mmdet.apis.init_detector", "module", _CONV),
    Builder("mmseg.apis.init_segmentor", "module", _CONV),
    Builder("vit_pytorch.*ViT*", "module", frozenset({"Linear", "LayerNorm"})),
    Builder("speechbrain.*.from_hparams", "module"),
    Builder("speechbrain.lobes.models.*", "module"),
)

BUILDING_METHODS = words(
    """
    from_pretrained from_config from_name from_single_file from_hparams from_pretrain _from_config
    load_from_checkpoint create from_checkpoint from_params from_tf from_state_dict get_model
    """
)
"""Class methods that give an instance of their class (of a module class, that is a model)."""

TUPLE_BUILDERS = {
    "clip.load": 2,
    "open_clip.create_model_and_transforms": 3,
    "open_clip.create_model_from_pretrained": 2,
    "fairseq.checkpoint_utils.load_model_ensemble_and_task": 0,
}
"""Functions that give a tuple whose first item is a model, with the length of the tuple."""

MODULE_BASES = re.compile(
    r"torch\.nn\.([A-Za-z.]*\.)?[A-Z]\w*|torch\.jit\.ScriptModule|(pytorch_lightning|lightning)\.[\w.]*LightningModule|"
    r"transformers\.[\w.]*(Model|PreTrainedModel|For[A-Z]\w+|Mixin)|diffusers\.[\w.]*(ModelMixin|Model)|"
    r"(mmcv|mmengine)\.[\w.]*BaseModu?e?l?e?|fairseq\.models\.\w+|timm\.models\.[\w.]*[A-Z]\w*|"
    r"torchvision\.models\.[\w.]*[A-Z]\w*|torchvision\.ops\.[A-Z]\w*|torch_geometric\.nn\.[\w.]*[A-Z]\w*|"
    r"efficientnet_pytorch\.[\w.]*EfficientNet|monai\.networks\.nets\.\w+|gpytorch\.models\.\w+|"
    r"huggingface_hub\.PyTorchModelHubMixin"
)
"""Classes outside the project whose subclasses are modules."""

LOSS_NAMES = re.compile(r"(Loss|Criterion|Criteria|Metric|CrossEntropy)\w*$", re.IGNORECASE)
LOSS_VARIABLES = re.compile(r"(^|_)(criterion|criteria|loss|losses|loss_fn|loss_func|metric)(_|s?$|\d)", re.IGNORECASE)

LAYERS = words(
    """
    Linear Bilinear LazyLinear Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d
    LazyConv1d LazyConv2d LazyConv3d RNN LSTM GRU RNNCell LSTMCell GRUCell Embedding EmbeddingBag
    MultiheadAttention Transformer TransformerEncoder TransformerDecoder TransformerEncoderLayer
    TransformerDecoderLayer BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm LayerNorm GroupNorm
    InstanceNorm1d InstanceNorm2d InstanceNorm3d RMSNorm PReLU
    """
)
"""Layers of `torch.nn` that have parameters."""

UNKNOWN_LAYER = "?"
"""Stands for parameters of a project's own that are used by functions of `torch.nn.functional`."""

CONTAINERS = frozenset({"Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict"})

IMPLIED_LAYERS = {
    "MultiheadAttention": {"Linear"},
    "Transformer": {"Linear", "LayerNorm"},
    "TransformerEncoder": {"Linear", "LayerNorm"},
    "TransformerDecoder": {"Linear", "LayerNorm"},
    "TransformerEncoderLayer": {"Linear", "LayerNorm"},
    "TransformerDecoderLayer": {"Linear", "LayerNorm"},
    "LazyLinear": {"Linear"},
    "LazyConv2d": {"Conv2d"},
}

WRAPPERS: dict[str, str] = {
    "torch.nn.DataParallel": "data_parallel",
    "torch.nn.parallel.DataParallel": "data_parallel",
    "torch.nn.parallel.data_parallel.DataParallel": "data_parallel",
    "torch.nn.parallel.DistributedDataParallel": "data_parallel",
    "torch.nn.parallel.distributed.DistributedDataParallel": "data_parallel",
    "torch.distributed.fsdp.FullyShardedDataParallel": "data_parallel",
    "apex.parallel.DistributedDataParallel": "data_parallel",
    "torch.compile": "compile",
    "torch._dynamo.optimize": "compile",
    "torch.jit.script": "jit",
    "torch.jit.trace": "jit",
    "torch.jit.freeze": "jit",
    "torch.jit.optimize_for_inference": "jit",
    "torch.quantization.quantize_dynamic": "quantized",
    "torch.ao.quantization.quantize_dynamic": "quantized",
    "torch.quantization.prepare": "quantized",
    "torch.quantization.convert": "quantized",
    "torch.quantization.prepare_qat": "quantized",
    "torch.ao.quantization.prepare": "quantized",
    "torch.ao.quantization.convert": "quantized",
    "torch.ao.quantization.prepare_qat": "quantized",
    "torch.quantization.quantize_fx.prepare_fx": "quantized",
    "torch.quantization.quantize_fx.convert_fx": "quantized",
    "torch.ao.quantization.quantize_fx.prepare_fx": "quantized",
    "torch.ao.quantization.quantize_fx.convert_fx": "quantized",
    "torchao.quantization.quantize_": "quantized",
    "torchao.quantization.autoquant": "quantized",
    "nncf.quantize": "quantized",
    "torch.nn.SyncBatchNorm.convert_sync_batchnorm": "",
    "torch.nn.utils.spectral_norm": "",
    "torch.nn.utils.weight_norm": "",
    "torch.nn.utils.fusion.fuse_conv_bn_eval": "",
    "torch.fx.symbolic_trace": "jit",
    "intel_extension_for_pytorch.optimize": "",
    "ipex.optimize": "",
    "apex.amp.initialize": "accelerate",
    "deepspeed.initialize": "accelerate",
    "deepspeed.init_inference": "accelerate",
    "peft.get_peft_model": "",
    "peft.prepare_model_for_kbit_training": "",
    "peft.prepare_model_for_int8_training": "",
    "neural_coder.runtime.accelerate": "",
    "torchvision.models.feature_extraction.create_feature_extractor": "",
    "torchvision.models._utils.IntermediateLayerGetter": "",
    "accelerate.cpu_offload": "",
    "accelerate.dispatch_model": "",
    "accelerate.load_checkpoint_and_dispatch": "",
    "torch.quantization.fuse_modules": "",
    "torch.ao.quantization.fuse_modules": "",
}
"""Functions and classes that take a model and give it back, changed or wrapped; and the trait that this leaves."""

EXPORTS = frozenset(
    {
        "torch.onnx.export",
        "torch.onnx.dynamo_export",
        "torch.onnx.utils.export",
        "torch.export.export",
        "torch2trt.torch2trt",
    }
)
"""Functions that write a model, or what it computes, for another engine."""

METHOD_TRAITS = {
    "eval": "eval",
    "train": "train",
    "cuda": "cuda",
    "half": "half",
    "bfloat16": "bfloat16",
    "compile": "compile",
}

SELF_METHODS = words(
    """
    to cuda cpu xpu half float double bfloat16 eval train requires_grad_ apply share_memory to_empty type
    ipu fuse merge_and_unload to_bettertransformer reverse_bettertransformer bind set_adapter
    """
)
"""Methods of a model that give the model itself."""

MODEL_METHODS = SELF_METHODS | words(
    """
    parameters named_parameters state_dict load_state_dict modules named_modules children named_children
    buffers named_buffers zero_grad register_forward_hook resize_token_embeddings save_pretrained
    """
)
"""Methods that tell that a thing is a module."""

INFERENCE_METHODS = words(
    """
    forward generate encode encode_image encode_text encode_multi_process predict predict_step predict_proba
    transcribe detect infer inference extract_features get_image_features get_text_features
    get_audio_features greedy_search beam_search sample encode_batch classify_batch classify_file
    transcribe_batch transcribe_file separate_batch separate_file enhance_batch enhance_file encode_query
    encode_document chat rank detect_language translate get_action get_value act extract_endpoints
    extract_vector
    """
)
"""Methods of models from libraries that run them forward."""

PIPELINE_METHODS = INFERENCE_METHODS | frozenset({"track"})

TRAINERS = re.compile(
    r"transformers\.[\w.]*Trainer|trl\.\w*Trainer|sentence_transformers\.[\w.]*Trainer|"
    r"(pytorch_lightning|lightning)\.[\w.]*Trainer|speechbrain\.[\w.]*Brain|setfit\.\w*Trainer"
)
FIT_METHODS = frozenset({"fit", "train", "fit_one_cycle", "learn", "fine_tune"})

TRAINING_METHODS = {
    "training_step": re.compile(r"(pytorch_lightning|lightning)\.[\w.]*LightningModule"),
    "compute_loss": re.compile(r"(transformers|trl|sentence_transformers)\.[\w.]*Trainer"),
    "compute_forward": re.compile(r"speechbrain\.[\w.]*Brain"),
}
"""Methods that a framework calls to train: a forward in them is one of training. With the base class that says so."""

GIVES_LOSS = re.compile(r"_?(get|compute|calc|calculate|training|train)_(\w+_)?loss(es)?|training_step|train_step")
"""Functions that, where nothing in the project calls them, are handed to a trainer for their loss."""

STEP_METHODS = words(
    """
    training_step validation_step test_step predict_step shared_step _shared_step validation_epoch_end _step
    shared_eval_step _shared_eval_step common_step _common_step on_validation_epoch_end
    """
)
"""Methods of a module in which `self(x)` and `self.part(x)` are calls of a script, not parts of a forward."""

_HOOK_METHODS = re.compile(
    r"on_(train|validation|test|predict|fit)_\w*(start|end)|(training|validation|test)_epoch_end"
)


def is_step_method(name: str) -> bool:
    """Whether a trainer calls a method of this name around the forward of its module."""
    return name in STEP_METHODS or bool(_HOOK_METHODS.fullmatch(name))


PARTS = words(
    """
    features classifier backbone encoder decoder trunk visual transformer bert text_model vision_model
    text_encoder image_encoder unet vae layer1 layer2 layer3 layer4
    """
)
"""Attributes of models from libraries that are modules themselves: calling one, too, runs the model."""

MODULE_HOLDERS = {"modules": re.compile(r"speechbrain\.[\w.]*Brain")}
"""Attributes that hold modules from outside the code (configuration files), with the base class that has them."""

NO_MODEL_PARTS = re.compile(r"norm|feature|augment|loss|cost|metric|tokeniz|schedul|optimi", re.IGNORECASE)
"""Names in such holders that are no models."""

OPTIMIZERS = re.compile(
    r"torch\.optim\.(?!lr_scheduler|swa_utils)([\w?]+\.)*([A-Z]\w*|\?)|torch\.optim\.Optimizer|transformers\.[\w.]*(AdamW|Adafactor)|"
    r"timm\.optim\.[\w.]*(create_optimizer\w*|[A-Z]\w*)|apex\.optimizers\.\w+|bitsandbytes\.optim\.\w+|"
    r"torch_optimizer\.\w+|pytorch_pretrained_bert\.[\w.]*BertAdam|pytorch_transformers\.[\w.]*AdamW|lion_pytorch\.\w+|"
    r"deepspeed\.ops\.adam\.\w+|adabelief_pytorch\.\w+|torch\.distributed\.optim\.\w+"
)
LOADERS = re.compile(
    r"torch\.utils\.data\.([\w.]*\.)?DataLoader|torch_geometric\.(data|loader)\.\w*Loader|"
    r"accelerate\.data_loader\.\w+|torchdata\.[\w.]*DataLoader2?|monai\.data\.([\w.]*\.)?\w*DataLoader|timm\.data\.create_loader|"
    r"timm\.data\.[\w.]+\.create_loader|torchtext\.data\.([\w.]*\.)?\w*Iterator|ffcv\.loader\.Loader|dgl\.dataloading\.\w*DataLoader"
)
DATASETS = re.compile(r"torch\.utils\.data\.([\w.]*\.)?\w*(Dataset|Subset|Sampler)|torchvision\.datasets\.\w+")
SCHEDULERS = re.compile(r"torch\.optim\.(lr_scheduler|swa_utils)\..*|transformers\.[\w.]*get_\w*schedule\w*")
TRANSFORMS = re.compile(
    r"torchvision\.transforms\..*|kornia\.augmentation\..*|torchaudio\.transforms\..*|torchmetrics\..*"
)
GRAD_SCALERS = re.compile(r"torch\.(cuda\.)?amp\.([\w.]*\.)?GradScaler|torch\.GradScaler")
AUTOCASTS = re.compile(r"torch\.(cuda\.amp\.|amp\.|cpu\.amp\.|xpu\.amp\.)?([\w.]*\.)?autocast|apex\.amp\.autocast")
NO_GRAD = frozenset({"torch.no_grad", "torch.autograd.no_grad", "torch.autograd.grad_mode.no_grad"})
INFERENCE_MODE = frozenset(
    {"torch.inference_mode", "torch.autograd.inference_mode", "torch.autograd.grad_mode.inference_mode"}
)
SET_GRAD = frozenset(
    {"torch.set_grad_enabled", "torch.autograd.set_grad_enabled", "torch.autograd.grad_mode.set_grad_enabled"}
)
ENABLE_GRAD = frozenset({"torch.enable_grad", "torch.autograd.enable_grad"})

# Aliases that libraries give their own names; the left one is rewritten to the right one.
CANONICAL = {
    "torch.nn.modules.module.Module": "torch.nn.Module",
    "lightning.pytorch": "pytorch_lightning",
    "torch.utils.data.dataloader.DataLoader": "torch.utils.data.DataLoader",
}


FOREIGN = words(
    """
    builtins abc typing collections functools itertools dataclasses enum os sys re json math random time
    datetime argparse logging pathlib shutil subprocess threading multiprocessing queue copy io pickle csv
    glob string socket types inspect contextlib warnings traceback tempfile hashlib base64 struct uuid
    urllib http unittest operator statistics decimal fractions concurrent asyncio signal numpy scipy pandas
    sklearn matplotlib seaborn PIL cv2 skimage keras tensorflow tf_keras tflearn jax flax haiku mxnet onnx
    onnxruntime openvino xgboost lightgbm catboost gym gymnasium tqdm yaml requests omegaconf hydra wandb
    click fire rich tensorboard tensorboardX pytest nltk spacy gensim datasets evaluate tokenizers
    sentencepiece paddle neural_compressor nncf cupy numba polars pydantic fastapi flask sqlalchemy sqlmodel
    gradio streamlit albumentations imageio librosa soundfile einops h5py joblib redis boto3 google azure
    openai anthropic langchain setuptools attr attrs six
    """
)
"""Packages whose classes are never PyTorch modules."""

_TORCH_NN_PATHS = re.compile(r"torch\.nn\.modules\.\w+\.([A-Z]\w*)")


@functools.lru_cache(maxsize=8192)
def canonical(name: str) -> str:
    """A dotted name as PyTorch's documentation writes it."""
    known = CANONICAL.get(name)
    if known is not None:
        return known
    match = _TORCH_NN_PATHS.fullmatch(name)
    return f"torch.nn.{match.group(1)}" if match else name


@functools.cache
def _compiled() -> tuple[tuple[re.Pattern[str], Builder], ...]:
    return tuple((re.compile(translate(builder.pattern)), builder) for builder in BUILDERS)


@functools.lru_cache(maxsize=4096)
def builder(name: str) -> Builder | None:
    """What the catalogue says about a dotted name; None when it says nothing."""
    if name.partition(".")[0] not in LIBRARIES:
        return None
    for pattern, entry in _compiled():
        if pattern.match(name):
            return entry if entry.gives != "nothing" else None
    return None


def is_module_base(name: str) -> bool:
    """Whether a class of this dotted name makes its subclasses modules."""
    return bool(MODULE_BASES.fullmatch(name)) or (entry_gives_module(name) and name.rpartition(".")[2][:1].isupper())


def entry_gives_module(name: str) -> bool:
    """Whether the catalogue knows the name as a builder of modules."""
    entry = builder(name)
    return entry is not None and entry.gives == "module"


def torch_layer(name: str) -> str:
    """The class name of a layer or container of `torch.nn` that has (or holds) parameters, else an empty text."""
    if not name.startswith("torch.nn."):
        return ""
    last = name.rpartition(".")[2]
    return last if last in LAYERS or last in CONTAINERS else ""


def is_loss(name: str) -> bool:
    """Whether a dotted name is that of a loss."""
    return bool(LOSS_NAMES.search(name.rpartition(".")[2]))


def optimizer_name(name: str) -> str:
    """An optimizer's name without the module that implements it: `torch.optim.AdamW`."""
    return f"torch.optim.{name.rpartition('.')[2]}" if name.startswith("torch.optim.") else name
