"""Pipelines as small as can be, with random weights: what they draw is noise.

`python tiny_models.py FOLDER` builds `sd`, `sd-512` and `flux` in it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

WORDS = ("a", "red", "fox", "in", "snow", "fog", "blue", "whale", "at", "night")


def build_stable_diffusion(folder: Path, *, side: int) -> None:
    """A Stable Diffusion of 5 MB whose native pictures have `side` pixels a side."""
    torch.manual_seed(0)
    pipe = StableDiffusionPipeline(
        vae=_vae(4),
        text_encoder=_clip(),
        tokenizer=_clip_tokenizer(folder.with_name(f"{folder.name}-words")),
        unet=UNet2DConditionModel(
            sample_size=side // 8,
            block_out_channels=(32, 64),
            layers_per_block=1,
            cross_attention_dim=32,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)


def build_flux(folder: Path) -> None:
    """A Flux whose native pictures are Flux's own; give it sizes."""
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel(_vocabulary("<unk>", "</s>", "<pad>"), unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=_vae(4, shift_factor=0.1),
        text_encoder=_clip(),
        tokenizer=_clip_tokenizer(folder.with_name(f"{folder.name}-words")),
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
        ),
        tokenizer_2=PreTrainedTokenizerFast(
            tokenizer_object=words,
            unk_token="<unk>",
            eos_token="</s>",
            pad_token="<pad>",
            model_max_length=512,
        ),
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=True,
        ),
    )
    pipe.save_pretrained(folder)


def _vae(latent_channels: int, **more: float) -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=64,
        **more,
    )


def _clip() -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=1000,
            hidden_size=32,
            intermediate_size=37,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            projection_dim=32,
            eos_token_id=1,
            bos_token_id=0,
        )
    )


def _vocabulary(*special: str) -> dict[str, int]:
    return {word: number for number, word in enumerate((*special, *dict.fromkeys(WORDS)))}


def _clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """One that knows letters, alone and at the end of a word."""
    folder.mkdir()
    letters = [chr(code) for code in range(33, 127)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{one}</w>" for one in letters)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    return CLIPTokenizer(
        vocab=str(folder / "vocab.json"),
        merges=str(folder / "merges.txt"),
        model_max_length=77,
        pad_token="<|endoftext|>",
    )


if __name__ == "__main__":
    build_stable_diffusion(Path(sys.argv[1]) / "sd", side=64)
    build_stable_diffusion(Path(sys.argv[1]) / "sd-512", side=512)
    build_flux(Path(sys.argv[1]) / "flux")
