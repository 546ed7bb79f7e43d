"""File names, the keys that this project adds to config.json, and label values.

`tied_model.py` repeats four of the keys: it is copied beside weights and has to stand alone.
"""

WEIGHTS = "model.safetensors"
SAFETENSORS, PICKLES = "model*.safetensors", "pytorch_model*.bin"
BESIDE = ("*.json", "*.txt", "*.spm", "*.model")  # configuration, tokenizer, image processor

# [{"tower": …, "layers": […], "anchor": …, "modules": [[…], …]}]: the merged groups, with the names
# of the modules that share their weights
GROUPS = "ffmerge_groups"
DROPPED = "ffmerge_dropped"  # [{"tower": …, "layers": […]}, …]: the removed layers
INT8 = "ffmerge_int8"  # {"threshold": …}: settings of a quantized model's linear maps
OWN_ENTRY = "ffmerge_architecture"  # the model's entry, if the table of architectures has none
# `model_type` of a model with merged sublayers, and the key of its stock model type
MERGED_TYPE, STOCK_TYPE = "ffmerge", "ffmerge_model_type"

IGNORED = -100  # label of a position that does not count, as everywhere in transformers
