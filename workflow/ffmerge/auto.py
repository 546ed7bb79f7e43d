"""Register merged models with transformers: `import ffmerge.auto`.

After it, `AutoConfig`, `AutoModelForCausalLM` and the other Auto classes load directories that
`ffmerge` wrote. `ffmerge.load` needs no registration.
"""

from transformers import AutoConfig

from ffmerge.models.tied_model import MODEL_TYPE, MergedConfig

AutoConfig.register(MODEL_TYPE, MergedConfig, exist_ok=True)
