"""Load merged models as ordinary transformers models whose feed-forward sublayers are tied.

The config.json of a merged model lists what is merged:

    "model_type": "ffmerge"            so that plain transformers refuses it, instead of making up
                                       the sublayers that are stored only once
    "ffmerge_model_type": "gpt2"       the model type of the stock model
    "ffmerge_groups": [{"modules": [["transformer.h.4.mlp.c_fc", "transformer.h.5.mlp.c_fc"], …]}]
                                       modules that share weight and bias, one list per linear map
                     "rank": 16        of a relaxed group: its modules share the weight W only; each
                                       has a bias of its own and computes W x + B A x, with A (16,
                                       n_in) and B (n_out, 16) of its own
                     "low_rank": true  of modules that share nothing: B is their weight, without a W

In memory, the configuration and the model belong to subclasses of the stock classes with the same
names, so that everything that goes by names (tokenizers, processors, losses, adapters, the names of
tensors on disk) treats it as the stock model. These subclasses are attributes of this module,
created on access: `GPT2LMHeadModel` here is the tied one.

This file imports only torch and transformers. A copy of it beside the weights, modeling_ffmerge.py,
is all that `AutoModelFor….from_pretrained(path, trust_remote_code=True)` needs.
"""

import copy
import inspect
import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import transformers
from torch.nn import Parameter
from torch.nn.functional import linear
from transformers import PreTrainedConfig
from transformers.pytorch_utils import Conv1D

MODEL_TYPE = "ffmerge"  # model type of every merged model
STOCK_TYPE = "ffmerge_model_type"  # key: model type of the stock model
GROUPS = "ffmerge_groups"  # key: [{"modules": [[name, …], …], …}, …], what is merged
INT8 = "ffmerge_int8"  # key: the weights are int8
RANK = "rank"  # key of a group: the rank of each module's own correction; none if it has none
OWN = ("correction_in", "correction_out", "factor_in")  # parameters of such a module
LOW_RANK = "low_rank"  # key of a group: whether there is nothing but the corrections
CODE = "modeling_ffmerge.py"  # name of this file beside the weights


class TiedModel:
    """A mixin that ties feed-forward sublayers by the means with which transformers ties heads.

    It comes before a stock class in the bases: see tied_model_class.
    """

    def __init__(self, *inputs: Any, **options: Any) -> None:
        super().__init__(*inputs, **options)
        for name, (rank, is_low_rank) in relaxed_modules(self).items():
            (factorize if is_low_rank else relax)(self.get_submodule(name), rank)

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """{tensor: the tensor it is tied to}, in the stock model or by merging."""
        return super().get_expanded_tied_weights_keys(all_submodels) | shared_tensors(self)

    @property
    def _tied_weights_keys(self) -> dict[str, str]:
        """The tensors that a file may leave out because they are tied in memory."""
        stock = vars(self).get("_tied_weights_keys", super()._tied_weights_keys)
        return (stock or {}) | shared_tensors(self)

    @_tied_weights_keys.setter
    def _tied_weights_keys(self, stock: dict[str, str]) -> None:  # as Marian's __init__ does
        vars(self)["_tied_weights_keys"] = stock

    def tie_weights(self, missing_keys: set[str] | None = None, **options: Any) -> None:
        """Tie the tensors. missing_keys: tensors that the file lacks, while a file is loaded.

        Raises ValueError if the file holds different values for sublayers that its configuration
        says are merged.
        """
        super().tie_weights(missing_keys, **options)
        if missing_keys is None:
            return
        if hasattr(self.config, "quantization_config"):
            self._share_quantized()
        for target, source in shared_tensors(self).items():
            if self.get_parameter(target) is not self.get_parameter(source):
                raise ValueError(
                    f"{GROUPS} in config.json says that {target} is {source}, but the file holds "
                    "both, with different values"
                )

    @classmethod
    def from_pretrained(cls, path: Any, *inputs: Any, **options: Any) -> Any:
        """Load a model, as `from_pretrained` of the stock class does.

        A quantizer would mistake merged sublayers for tied heads and skip them, so it gets the list
        of modules that it would skip in the stock model.
        Raises ValueError for a file of int8 weights, and for a relaxed model if it is to be
        quantized.
        """
        config = options.get("config")
        if not isinstance(config, PreTrainedConfig):
            config = cls.config_class.from_pretrained(config or path)
        if hasattr(config, INT8):
            raise ValueError(f"{path} holds int8 weights: ffmerge.load reads them, not this")
        if (quantization := options.get("quantization_config")) is not None:
            if any(RANK in group for group in getattr(config, GROUPS, [])):
                raise ValueError(
                    f"{path} has low-rank maps or corrections, which quantization would lose: "
                    "quantize an export of it in the form `expanded`"
                )
            options["quantization_config"] = _skipping_as_stock(quantization, cls, config)
        return super().from_pretrained(path, *inputs, **options)

    def _share_quantized(self) -> None:
        """Share the state that quantized modules hold besides their parameters."""
        for target, source in shared_modules(self).items():
            module, origin = self.get_submodule(target), self.get_submodule(source)
            if hasattr(origin, "init_8bit_state"):  # taken from the weight, which works once
                if origin.weight.CB is not None:
                    origin.init_8bit_state()
                module.state.CB, module.state.SCB = origin.state.CB, origin.state.SCB
            self._keys_to_ignore_on_save |= {f"{target}.{name}" for name in origin.state_dict()}

    def _adjust_bias(self, module: Any, source: Any) -> None:
        """Skip merged modules: this is for heads and would cut the bias of a Conv1D."""
        if all(module is not self.get_submodule(name) for name in shared_modules(self)):
            super()._adjust_bias(module, source)

    @classmethod
    def is_custom_code(cls) -> bool:
        """Say no, so that tensor names on disk are converted as for the stock model."""
        return False


def _skipping_as_stock(quantization: Any, tied: type, config: Any) -> Any:
    """A quantization that skips the modules that it would skip in the stock model."""
    import torch
    from transformers.quantizers.auto import AutoQuantizationConfig
    from transformers.quantizers.base import get_keys_to_not_convert

    if isinstance(quantization, dict):
        quantization = AutoQuantizationConfig.from_dict(quantization)
    quantization, stock = copy.copy(quantization), tied.__bases__[1]
    for skipped in ("llm_int8_skip_modules", "modules_to_not_convert"):  # by kind of quantizer
        if getattr(quantization, skipped, ()) is None:
            with torch.device("meta"):
                names = get_keys_to_not_convert(stock(copy.copy(config)))
            setattr(quantization, skipped, sorted(names))
    return quantization


class TiedConfig:
    """A mixin for a stock configuration with GROUPS, whose model type on disk is MODEL_TYPE."""

    @classmethod
    def get_config_dict(cls, *args: Any, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        config, rest = super().get_config_dict(*args, **options)
        return _as_in_memory(config), rest

    def to_json_string(self, use_diff: bool = True) -> str:
        """The text of config.json. (`to_dict` keeps the stock model type, which peft reads.)"""
        config = json.loads(super().to_json_string(use_diff))
        config |= {"model_type": MODEL_TYPE, STOCK_TYPE: self.model_type}
        return json.dumps(config, indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        super().save_pretrained(save_directory, **options)
        if hasattr(self, "auto_map"):  # it came with its code, so it is saved with it
            shutil.copyfile(__file__, Path(save_directory) / CODE)


class MergedConfig(PreTrainedConfig):
    """The configuration class for MODEL_TYPE, which stands for any merged model's class."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **options: Any) -> Any:
        """The configuration of a merged model, in a subclass of its stock class.

        Raises ValueError if this version of transformers does not know the stock model type.
        """
        config = _as_in_memory(config_dict)
        known = transformers.models.auto.configuration_auto.CONFIG_MAPPING
        if config["model_type"] not in known:
            raise ValueError(f"transformers knows no {STOCK_TYPE} {config['model_type']!r}")
        return tied_config_class(known[config["model_type"]]).from_dict(config, **options)


def _as_in_memory(config: dict[str, Any]) -> dict[str, Any]:
    if config.get("model_type") != MODEL_TYPE:
        return config
    if STOCK_TYPE not in config:
        raise ValueError(f"config.json has the model type {MODEL_TYPE}, but no {STOCK_TYPE}")
    rest = {key: value for key, value in config.items() if key != STOCK_TYPE}
    return rest | {"model_type": config[STOCK_TYPE]}


@cache
def tied_model_class(stock: type) -> type:
    """The subclass of a stock model class that ties the groups in its configuration."""
    if issubclass(stock, TiedModel):
        return stock
    config_class = tied_config_class(stock.config_class)
    names = {"__module__": __name__, "__doc__": stock.__doc__, "config_class": config_class}
    return type(stock.__name__, (TiedModel, stock), names)


@cache
def tied_config_class(stock: type) -> type:
    """The subclass of a stock configuration class for merged models, known to the Auto classes."""
    if issubclass(stock, TiedConfig):
        return stock
    names = {"__module__": __name__, "__doc__": stock.__doc__}
    tied = type(stock.__name__, (TiedConfig, stock), names)
    for auto_class, classes in _auto_classes(stock.model_type):
        auto_class.register(tied, _TiedClasses(classes), exist_ok=True)
    return tied


class _TiedClasses(tuple):
    """Names of stock model classes. Items are the tied classes, imported when they are accessed."""

    def __iter__(self) -> Iterator[type]:
        return (_tied(name) for name in super().__iter__())

    def __getitem__(self, index: int) -> type:
        return _tied(super().__getitem__(index))


def _auto_classes(model_type: str) -> Iterator[tuple[type, list[str]]]:
    """The Auto classes that know a model type, each with the names of its model classes."""
    from transformers.models.auto import modeling_auto

    for auto_class in filter(inspect.isclass, vars(modeling_auto).values()):
        names = getattr(getattr(auto_class, "_model_mapping", None), "_model_mapping", {})
        if model_type in names:
            classes = names[model_type]
            yield auto_class, [classes] if isinstance(classes, str) else list(classes)


def _tied(name: str) -> type:
    """The tied class for the name of a stock model or configuration class."""
    stock = getattr(transformers, name)
    if issubclass(stock, PreTrainedConfig):
        return tied_config_class(stock)
    if issubclass(stock, transformers.PreTrainedModel):
        return tied_model_class(stock)
    raise AttributeError(f"{name} is no class of models or configurations")


def __getattr__(name: str) -> type:
    """Create a tied class on access: for pickle, `auto_map` and imports."""
    if name.startswith("_") or not isinstance(getattr(transformers, name, None), type):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _tied(name)


def shared_modules(model: Any) -> dict[str, str]:
    """{module: the module whose weights it shares}, by their names in this model."""
    return {name: names[0] for names, _ in _merged_maps(model) for name in names[1:]}


def relaxed_modules(model: Any) -> dict[str, tuple[int, bool]]:
    """{module: (its rank, whether it is low-rank alone)}, by their names in this model."""
    return {
        name: (group[RANK], group.get(LOW_RANK, False))
        for names, group in _merged_maps(model)
        if RANK in group
        for name in names
    }


def _merged_maps(model: Any) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Names in this model of the modules that share a weight, and their group.

    Names in a configuration are those of the model that was merged; this model may have a head
    which that one lacks, or the reverse. A tower that this model lacks (T5's decoder in
    T5EncoderModel) is skipped. Raises ValueError if it has some modules of a list but not all.
    """
    prefix = f"{model.base_model_prefix}."
    present = {name for name, _ in model.named_modules(remove_duplicate=False)}

    def here(name: str) -> str | None:
        candidates = (name, name.removeprefix(prefix), prefix + name)
        return next((candidate for candidate in candidates if candidate in present), None)

    for group in getattr(model.config, GROUPS, []):
        for names in group["modules"]:
            places = [here(name) for name in names]
            if any(places) and not all(places):
                absent = [name for name, place in zip(names, places, strict=True) if place is None]
                raise ValueError(f"{GROUPS} in config.json names what is not there: {absent}")
            if any(places):
                yield places, group


def shared_tensors(model: Any) -> dict[str, str]:
    """{tensor: the tensor it is tied to}, by their names in this model."""
    relaxed = relaxed_modules(model)
    return {
        f"{target}.{name}": f"{source}.{name}"
        for target, source in shared_modules(model).items()
        for name, _ in model.get_submodule(source).named_parameters(recurse=False)
        if name == "weight" or source not in relaxed
    }


def relax(module: Any, rank: int) -> None:
    """Give a linear map a correction B A of its own to its weight, of this rank or its full one.

    A is its parameter `correction_in`, (rank, n_in), and B `correction_out`, (n_out, rank). Both
    are 0. They are applied by a hook, so that the module keeps its class.
    """
    n_out, n_in, rank = _sizes(module, rank)
    module.correction_in = Parameter(module.weight.new_zeros(rank, n_in))
    module.correction_out = Parameter(module.weight.new_zeros(n_out, rank))
    module.register_forward_hook(_corrected)


def _sizes(module: Any, rank: int) -> tuple[int, int, int]:
    """(n_out, n_in) of a linear map, and the rank within these."""
    shape = module.weight.shape
    n_out, n_in = reversed(shape) if isinstance(module, Conv1D) else shape
    return n_out, n_in, min(rank, n_out, n_in)


def factorize(module: Any, rank: int) -> None:
    """Turn a linear map into B A x of this rank or its full one, and its bias.

    B, (n_out, rank), is its new weight, stored as the old one was; A is its parameter `factor_in`,
    (rank, n_in), which a hook applies before the map. Both are 0.
    """
    n_out, n_in, rank = _sizes(module, rank)
    of_b = (rank, n_out) if isinstance(module, Conv1D) else (n_out, rank)
    module.factor_in = Parameter(module.weight.new_zeros(rank, n_in))
    module.weight = Parameter(module.weight.new_zeros(of_b))
    module.register_forward_pre_hook(_within)


def _within(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """A hook that applies A to what a linear map gets."""
    return (linear(inputs[0], module.factor_in), *inputs[1:])


def _corrected(module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
    """A hook that adds B A x to the output of a linear map."""
    return output + linear(linear(inputs[0], module.correction_in), module.correction_out)


def absorb(module: Any) -> None:
    """Give a relaxed or low-rank linear map the whole weight, and remove what made it so."""
    module.weight = Parameter(absorbed(module))
    for name in {*OWN} & dict(module.named_parameters(recurse=False)).keys():
        delattr(module, name)
    for hooks in (module._forward_hooks, module._forward_pre_hooks):
        for key, hook in list(hooks.items()):
            if getattr(hook, "__name__", None) in (_corrected.__name__, _within.__name__):
                del hooks[key]


def absorbed(module: Any) -> Any:
    """The whole weight of a relaxed or low-rank linear map, in the weight's dtype."""
    own = {name: tensor.detach().double() for name, tensor in module.named_parameters()}
    weight = own["weight"].T if isinstance(module, Conv1D) else own["weight"]
    if "factor_in" in own:
        weight = weight @ own["factor_in"]
    else:
        weight = weight + own["correction_out"] @ own["correction_in"]
    return (weight.T if isinstance(module, Conv1D) else weight).to(module.weight.dtype).contiguous()


def become_tied(model: Any, groups: list[dict[str, Any]]) -> None:
    """Tie sublayers of a stock model in place, which changes its class to the tied one.

    groups: as under GROUPS. The modules of a list get the weights of its first module.
    """
    setattr(model.config, GROUPS, groups)
    model.config.__class__ = tied_config_class(type(model.config))
    model.__class__ = tied_model_class(type(model))
    # not recomputed: that would tie a head again that is stored beside the embeddings
    model.all_tied_weights_keys = model.all_tied_weights_keys | shared_tensors(model)
    model.tie_weights(recompute_mapping=False)


def write_code(directory: Path) -> None:
    """Copy this file beside a merged model, and map the Auto classes to it in config.json.

    The model then loads without ffmerge if trust_remote_code=True is passed.
    """
    file = directory / "config.json"
    config = json.loads(file.read_text())
    module = CODE.removesuffix(".py")
    auto_map = {"AutoConfig": f"{module}.{MergedConfig.__name__}"}
    for auto_class, names in _auto_classes(config[STOCK_TYPE]):
        preferred = [name for name in config.get("architectures") or [] if name in names]
        auto_map[auto_class.__name__] = f"{module}.{[*preferred, *names][0]}"
    shutil.copyfile(__file__, directory / CODE)
    file.write_text(json.dumps(config | {"auto_map": auto_map}, indent=2, sort_keys=True) + "\n")
