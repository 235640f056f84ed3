"""Image-to-text models of the user's, as tiny configurations of the real classes with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from renoise.apps.studio import captions
from renoise.apps.studio.examples import examples

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "[ENC]", "a", "picture", "of", "apple", "red", "dog"]


@pytest.fixture
def blip(tmp_path: Path) -> Path:
    """A captioner that describes without being asked."""
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessorPil,
        BlipProcessor,
        BlipTextConfig,
        BlipVisionConfig,
    )

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = BlipTextConfig(
        vocab_size=len(WORDS), encoder_hidden_size=16, projection_dim=16, max_position_embeddings=64, bos_token_id=5,
        eos_token_id=3, sep_token_id=3, pad_token_id=0, **small,
    )  # fmt: skip
    vision = BlipVisionConfig(image_size=32, patch_size=16, projection_dim=16, **small)
    model = BlipForConditionalGeneration(
        BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    )
    model.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    processor = BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer)
    processor.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("offline")
def test_a_model_of_the_users_describes_pictures(blip: Path) -> None:
    captioner = captions.by_model(str(blip))
    (guess,) = captioner(examples()[0].picture)
    assert guess.probability is None
    assert set(guess.caption.lower().split()) <= {word.lower() for word in WORDS}
    assert guess == captioner(examples()[0].picture)[0]


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_captioner_is_refused_with_an_example(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--captioner .* no image-to-text model"):
        captions.by_model(str(tmp_path))
