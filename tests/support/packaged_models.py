"""Models that need ops of tensorflow_text and ydf_tf, and what these frameworks answer themselves.

Runs in a process of its own, `packaged_models.py FOLDER text forest`: the one that tests a model imports neither
package. Beside each model lies a file of JSON with the answers to the rows that stand here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TEXTS = ["the cat sat", "  two  spaces ", "", "naïve café", "one"]
AGES = [18.0, 25.5, 40.0, 61.0, 77.0, None]
COLOURS = ["red", "blue", "red", "green", "blue", "violet"]


def text(folder: Path) -> None:
    """Ops of two libraries of 22: tokens, and their n-grams joined."""
    import tensorflow as tf
    import tensorflow_text as tf_text

    class Tokens(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokenizer = tf_text.WhitespaceTokenizer()

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
        def call(self, text: Any) -> dict[str, Any]:
            tokens = self.tokenizer.tokenize(text)
            pairs = tf_text.ngrams(tokens, 2, reduction_type=tf_text.Reduction.STRING_JOIN, string_separator="_")
            return {"count": tokens.row_lengths(), "first": tokens.to_tensor("")[:, :1], "pairs": pairs.row_lengths()}

    module = Tokens()
    tf.saved_model.save(module, str(folder / "text"), signatures={"serving_default": module.call})
    answers = {name: value.numpy().tolist() for name, value in module.call(tf.constant(TEXTS)).items()}
    answers["first"] = [[each.decode() for each in row] for row in answers["first"]]
    (folder / "text.json").write_text(json.dumps(answers))


def forest(folder: Path) -> None:
    """A random forest over a number that may be missing and a word, as ydf exports it: it reads assets as it loads."""
    import numpy as np
    import ydf

    generator = np.random.default_rng(1)
    ages = generator.uniform(10, 90, 400)
    colours = generator.choice(["red", "green", "blue"], 400)
    label = ((ages > 40) ^ (colours == "red")).astype(int)
    data = {"age": ages, "colour": colours, "label": label}
    model = ydf.RandomForestLearner(label="label", num_trees=10, num_threads=1).train(data, verbose=0)
    model.to_tensorflow_saved_model(str(folder / "forest"), mode="tf")
    rows = {"age": np.array([np.nan if age is None else age for age in AGES]), "colour": np.array(COLOURS)}
    (folder / "forest.json").write_text(json.dumps(model.predict(rows).tolist()))


if __name__ == "__main__":
    for kind in sys.argv[2:]:
        {"text": text, "forest": forest}[kind](Path(sys.argv[1]))
