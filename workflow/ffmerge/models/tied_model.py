"""A merged model as an ordinary transformers model whose feed-forward sublayers are tied.

The config.json of such a model says what is merged:

    "model_type": "ffmerge"            so that plain transformers refuses it, instead of making up
                                       the sublayers that are stored only once
    "ffmerge_model_type": "gpt2"       what it is otherwise
    "ffmerge_groups": [{"modules": [["transformer.h.4.mlp.c_fc", "transformer.h.5.mlp.c_fc"], …]}]
                                       modules that share weight and bias, a list a linear map

In memory both the configuration and the model are of subclasses of the stock classes that bear
the stock names, so that everything that goes by names (tokenizers, processors, losses, adapters,
the names of tensors on disk) finds what it finds for the stock model. They are attributes of this
module, made when asked for: `GPT2LMHeadModel` here is the tied one.

This file imports nothing but transformers: a copy of it, modeling_ffmerge.py, beside the weights
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
from transformers import PreTrainedConfig

MODEL_TYPE = "ffmerge"  # of a merged model's config.json
STOCK_TYPE = "ffmerge_model_type"  # key: its model type if nothing were merged
GROUPS = "ffmerge_groups"  # key: [{"modules": [[name, …], …], …}, …], what is merged
INT8 = "ffmerge_int8"  # key: it was quantized
CODE = "modeling_ffmerge.py"  # this file beside the weights


class TiedModel:
    """What a stock model class lacks to tie feed-forward sublayers, through transformers' own ties.

    Before a stock class in the bases: see tied_model_class.
    """

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """{tensor: the tensor that it is}: the stock model's, and the weights and biases merged."""
        return super().get_expanded_tied_weights_keys(all_submodels) | shared_tensors(self)

    @property
    def _tied_weights_keys(self) -> dict[str, str]:
        """What may be left out of a file, where it is the same tensor in memory."""
        stock = vars(self).get("_tied_weights_keys", super()._tied_weights_keys)
        return (stock or {}) | shared_tensors(self)

    @_tied_weights_keys.setter
    def _tied_weights_keys(self, stock: dict[str, str]) -> None:  # Marian's are set on making it
        vars(self)["_tied_weights_keys"] = stock

    def tie_weights(self, missing_keys: set[str] | None = None, **options: Any) -> None:
        """Make tied tensors one. missing_keys: those that a file lacks, while one is loaded.

        Raises ValueError if a file holds sublayers, merged by its configuration, that differ.
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
        """As any model's. A quantizer, which would take what is merged for tied heads and skip it,
        is told to skip what it would skip in the stock model.

        Raises ValueError for a file of int8 weights.
        """
        config = options.get("config")
        if not isinstance(config, PreTrainedConfig):
            config = cls.config_class.from_pretrained(config or path)
        if hasattr(config, INT8):
            raise ValueError(f"{path} holds int8 weights: ffmerge.load reads them, not this")
        if (quantization := options.get("quantization_config")) is not None:
            options["quantization_config"] = _skipping_as_stock(quantization, cls, config)
        return super().from_pretrained(path, *inputs, **options)

    def _share_quantized(self) -> None:
        """Share what quantized modules hold besides their parameters."""
        for target, source in shared_modules(self).items():
            module, origin = self.get_submodule(target), self.get_submodule(source)
            if hasattr(origin, "init_8bit_state"):  # it would be taken from the weight, but once
                if origin.weight.CB is not None:
                    origin.init_8bit_state()
                module.state.CB, module.state.SCB = origin.state.CB, origin.state.SCB
            self._keys_to_ignore_on_save |= {f"{target}.{name}" for name in origin.state_dict()}

    def _adjust_bias(self, module: Any, source: Any) -> None:
        """For heads, whose bias follows a growing vocabulary. It would cut those of Conv1D."""
        if all(module is not self.get_submodule(name) for name in shared_modules(self)):
            super()._adjust_bias(module, source)

    @classmethod
    def is_custom_code(cls) -> bool:
        """It is the library's own model: its tensors' names on disk are converted likewise."""
        return False


def _skipping_as_stock(quantization: Any, tied: type, config: Any) -> Any:
    """A quantization that leaves out what it would leave out if nothing were merged."""
    import torch
    from transformers.quantizers.auto import AutoQuantizationConfig
    from transformers.quantizers.base import get_keys_to_not_convert

    if isinstance(quantization, dict):
        quantization = AutoQuantizationConfig.from_dict(quantization)
    quantization, stock = copy.copy(quantization), tied.__bases__[1]
    for skipped in ("llm_int8_skip_modules", "modules_to_not_convert"):  # by the kind of quantizer
        if getattr(quantization, skipped, ()) is None:
            with torch.device("meta"):
                names = get_keys_to_not_convert(stock(copy.copy(config)))
            setattr(quantization, skipped, sorted(names))
    return quantization


class TiedConfig:
    """A stock configuration with GROUPS: on disk it has the model type MODEL_TYPE."""

    @classmethod
    def get_config_dict(cls, *args: Any, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        config, rest = super().get_config_dict(*args, **options)
        return _as_in_memory(config), rest

    def to_json_string(self, use_diff: bool = True) -> str:
        """What config.json holds. (`to_dict` is as the stock model's: peft goes by its type.)"""
        config = json.loads(super().to_json_string(use_diff))
        config |= {"model_type": MODEL_TYPE, STOCK_TYPE: self.model_type}
        return json.dumps(config, indent=2, sort_keys=True) + "\n"

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        super().save_pretrained(save_directory, **options)
        if hasattr(self, "auto_map"):  # it came with its code, and goes with it
            shutil.copyfile(__file__, Path(save_directory) / CODE)


class MergedConfig(PreTrainedConfig):
    """Stands for the configuration of any merged model where a class is asked for by model type."""

    model_type = MODEL_TYPE

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **options: Any) -> Any:
        """The configuration of a merged model, of a subclass of its stock class.

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
    """The subclass of a stock model class that ties what its configuration says is merged."""
    if issubclass(stock, TiedModel):
        return stock
    config_class = tied_config_class(stock.config_class)
    names = {"__module__": __name__, "__doc__": stock.__doc__, "config_class": config_class}
    return type(stock.__name__, (TiedModel, stock), names)


@cache
def tied_config_class(stock: type) -> type:
    """The subclass of a stock configuration class for merged models, known to all Auto classes."""
    if issubclass(stock, TiedConfig):
        return stock
    names = {"__module__": __name__, "__doc__": stock.__doc__}
    tied = type(stock.__name__, (TiedConfig, stock), names)
    for auto_class, classes in _auto_classes(stock.model_type):
        auto_class.register(tied, _TiedClasses(classes), exist_ok=True)
    return tied


class _TiedClasses(tuple):
    """Stock model classes by name; gives the tied ones, whose modules are imported only then."""

    def __iter__(self) -> Iterator[type]:
        return (_tied(name) for name in super().__iter__())

    def __getitem__(self, index: int) -> type:
        return _tied(super().__getitem__(index))


def _auto_classes(model_type: str) -> Iterator[tuple[type, list[str]]]:
    """The Auto classes for models that know a model type, with the names of its classes there."""
    from transformers.models.auto import modeling_auto

    for auto_class in filter(inspect.isclass, vars(modeling_auto).values()):
        names = getattr(getattr(auto_class, "_model_mapping", None), "_model_mapping", {})
        if model_type in names:
            found = names[model_type]
            yield auto_class, [found] if isinstance(found, str) else list(found)


def _tied(name: str) -> type:
    """The tied class for the name of a stock class of models or of configurations."""
    stock = getattr(transformers, name)
    if issubclass(stock, PreTrainedConfig):
        return tied_config_class(stock)
    if issubclass(stock, transformers.PreTrainedModel):
        return tied_model_class(stock)
    raise AttributeError(f"{name} is no class of models or configurations")


def __getattr__(name: str) -> type:
    """Tied classes are found here by their names: by pickle, `auto_map`, and who imports them."""
    if name.startswith("_") or not isinstance(getattr(transformers, name, None), type):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _tied(name)


def shared_modules(model: Any) -> dict[str, str]:
    """{module: the module whose weights it uses}, by their names in this model.

    The names in a configuration are those of the model that was merged: here the base model may
    have a head that it had not, or lack one. A tower that this model does not have (T5's decoder in
    T5EncoderModel) is passed over. Raises ValueError if it has some of a list, but not all.
    """
    prefix = f"{model.base_model_prefix}."
    present = {name for name, _ in model.named_modules(remove_duplicate=False)}

    def here(name: str) -> str | None:
        candidates = (name, name.removeprefix(prefix), prefix + name)
        return next((candidate for candidate in candidates if candidate in present), None)

    shared = {}
    for names in (
        names for group in getattr(model.config, GROUPS, []) for names in group["modules"]
    ):
        first, *rest = found = [here(name) for name in names]
        if any(found) and not all(found):
            absent = [name for name, place in zip(names, found, strict=True) if place is None]
            raise ValueError(f"{GROUPS} in config.json names what is not there: {absent}")
        shared |= dict.fromkeys(rest, first) if first else {}
    return shared


def shared_tensors(model: Any) -> dict[str, str]:
    """{tensor: the tensor that it is}, by their names in this model."""
    return {
        f"{target}.{name}": f"{source}.{name}"
        for target, source in shared_modules(model).items()
        for name, _ in model.get_submodule(source).named_parameters(recurse=False)
    }


def become_tied(model: Any, groups: list[dict[str, Any]]) -> None:
    """Tie sublayers of a stock model in place, for good: it becomes of its tied class.

    groups: as under GROUPS; a module's weights become those of the first of its list.
    """
    setattr(model.config, GROUPS, groups)
    model.config.__class__ = tied_config_class(type(model.config))
    model.__class__ = tied_model_class(type(model))
    # not asked for anew: a head that is stored beside the embeddings is no longer among the ties
    model.all_tied_weights_keys = model.all_tied_weights_keys | shared_tensors(model)
    model.tie_weights(recompute_mapping=False)


def write_code(directory: Path) -> None:
    """Put the code of a merged model beside it, and into its config.json where to find which class.

    From then on it loads without ffmerge for those who pass trust_remote_code=True.
    """
    file = directory / "config.json"
    config = json.loads(file.read_text())
    module = CODE.removesuffix(".py")
    auto_map = {"AutoConfig": f"{module}.{MergedConfig.__name__}"}
    for auto_class, names in _auto_classes(config[STOCK_TYPE]):
        own = [name for name in config.get("architectures") or [] if name in names]
        auto_map[auto_class.__name__] = f"{module}.{[*own, *names][0]}"
    shutil.copyfile(__file__, directory / CODE)
    file.write_text(json.dumps(config | {"auto_map": auto_map}, indent=2, sort_keys=True) + "\n")
