"""How models are stored: file names, the keys this project adds to config.json, label values.

`tied_model.py` repeats four of these keys: it is copied beside weights and has to stand alone.
"""

WEIGHTS = "model.safetensors"
SAFETENSORS, PICKLES = "model*.safetensors", "pytorch_model*.bin"
BESIDE = ("*.json", "*.txt", "*.spm", "*.model")  # configuration, tokenizer, image processor

# [{"tower": …, "layers": […], "anchor": …, "modules": [[…], …]}]: what is merged, and the names of
# the modules that share their weights
GROUPS = "ffmerge_groups"
DROPPED = "ffmerge_dropped"  # [{"tower": …, "layers": […]}, …]: layers that were removed
INT8 = "ffmerge_int8"  # of a quantized model: what its linear maps need
OWN_ENTRY = "ffmerge_architecture"  # a model's own entry, if the table of architectures has none
# `model_type` of a model with merged sublayers, and the key of the model type it had before
MERGED_TYPE, STOCK_TYPE = "ffmerge", "ffmerge_model_type"

IGNORED = -100  # label of a position that does not count, as in all of transformers
