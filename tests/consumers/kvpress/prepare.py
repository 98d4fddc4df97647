"""Write what `run.py` reads: a pattern of the embedded model in DuoAttention's format, and needles as JSON.

The scores come from needles of the training split, `run.py` measures on needles of the test split.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import attnscope
from attnscope.analyses.kv_choice import rank_values, reduce_to_kv
from attnscope.collectors import collectors
from attnscope.core.head_file import Grids, HeadFile
from attnscope.reports.formats import formats
from attnscope.tasks._answers import with_answers
from attnscope.tasks.needle import Needle
from attnscope.tasks.repeats import Repeats

SINK_SIZE, RECENT_SIZE = 4, 64


def main() -> None:
    """Measure retrieval and induction, and write `pattern/` and `needles.json` into a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--needles", type=int, default=40)
    options = parser.parse_args()

    scope = attnscope.load(device="cpu")
    calibration = with_answers(Needle(n=20, length=1024, seed=1000, split="train").build(scope.tokenizer))
    repeats = Repeats(n=16, period=100).build(scope.tokenizer)
    retrieval = attnscope.collect(scope, calibration, [collectors.get("retrieval")()]).retrieval
    induction = attnscope.collect(scope, repeats, [collectors.get("induction")()]).induction
    keys = [reduce_to_kv(each.mean("prompt").values, scope.info.n_kv_heads) for each in (retrieval, induction)]

    options.out.mkdir(parents=True, exist_ok=True)
    ranks = tuple(map(tuple, rank_values(keys).tolist()))
    file = HeadFile(
        format="duo_attention",
        space="kv_head",
        n_layers=len(ranks),
        n_heads=len(ranks[0]),
        content=Grids(main="gate", values={"gate": ranks}),
        config={"sink_size": SINK_SIZE, "recent_size": RECENT_SIZE},
    )
    formats.get("duo_attention").write(file, options.out / "pattern")
    columns = ("input_ids", "answer_ids", "question_position")
    needles = {
        str(length): [
            {name: item[name] for name in columns}
            for item in Needle(n=options.needles, length=length, seed=0).rows(scope.tokenizer)
        ]
        for length in options.lengths
    }
    (options.out / "needles.json").write_text(json.dumps(needles) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
