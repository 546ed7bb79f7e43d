"""The three models of the paper at full size, with random weights."""


def gpt2_large():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_layer=36, n_embd=1280, n_head=20))


def vit_base():
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(num_labels=1000))


def opus_mt_zh_en():
    from transformers import MarianConfig, MarianMTModel

    return MarianMTModel(
        MarianConfig(
            vocab_size=65001,
            d_model=512,
            encoder_layers=6,
            decoder_layers=6,
            encoder_ffn_dim=2048,
            decoder_ffn_dim=2048,
            encoder_attention_heads=8,
            decoder_attention_heads=8,
            max_position_embeddings=512,
            pad_token_id=65000,
            eos_token_id=0,
            decoder_start_token_id=65000,
        )
    )
