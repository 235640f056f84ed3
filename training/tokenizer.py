"""Stage 4: a CLIP tokenizer with a vocabulary of its own, merged from the captions and tags of the training split.

python -m training.tokenizer --work WORK
"""

import argparse
import json
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer

from training.pictures import caption, load_rows

VOCABULARY = 2048
LENGTH = 24
START, END = "<|startoftext|>", "<|endoftext|>"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/training"))
    args = parser.parse_args()
    rows = load_rows(args.work, "train")
    texts = [caption(row) for row in rows] + [" ".join(row["tags"]) for row in rows]
    letters = sorted(ByteLevel.alphabet())
    seed = {letter: i for i, letter in enumerate([*letters, *(f"{letter}</w>" for letter in letters), START, END])}
    trained = CLIPTokenizer(seed, []).train_new_from_iterator(texts, VOCABULARY - 2, show_progress=False)
    model = json.loads(trained.backend_tokenizer.to_str())["model"]
    # START and END close the vocabulary, as in CLIP: its text model finds the end of a caption by the largest id.
    words = sorted((word for word in model["vocab"] if word not in (START, END)), key=model["vocab"].__getitem__)
    vocabulary = {word: i for i, word in enumerate([*words, START, END])}
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split()) for merge in model["merges"]]
    folder = args.work / "tokenizer"
    CLIPTokenizer(vocabulary, merges, model_max_length=LENGTH).save_pretrained(folder)
    # The older file pair too, for transformers before 5.
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    loaded = CLIPTokenizer.from_pretrained(folder)
    lengths = [len(loaded(caption(row)).input_ids) for row in rows]
    print(
        f"{len(vocabulary)} tokens; captions take {sum(lengths) / len(lengths):.1f} on average, {max(lengths)} at most"
    )
    print(loaded.tokenize("grinning cat with smiling eyes, fluent flat style"), loaded("red apple").input_ids)


if __name__ == "__main__":
    main()
