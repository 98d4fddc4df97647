"""The commands `attnscope export`, `import` and `compare`: head-score files of sparse decoders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .cli_options import exit_codes, out, written
from .reports.formats import formats

if TYPE_CHECKING:
    from .core.head_file import HeadFile

NAMES = ", ".join(formats.names())
_SCORE = "Head score of a report, for example retrieval."


def export(
    given: Annotated[Path, typer.Argument(metavar="DIR", help="Run directory, or a file that 'import' wrote.")],
    to: Annotated[str, typer.Option("--to", help=f"{NAMES}.")],
    out_: Annotated[Path, typer.Option("--out", help="File or folder to write.")],
    score: Annotated[str | None, typer.Option(help=f"duo_attention: in place of trained gates. {_SCORE}")] = None,
    budget: Annotated[
        float | None, typer.Option(min=0, max=1, help="duo_attention: share of KV heads that become 1, others 0.")
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="qrhead: heads to list; fasa: chunks a head.")] = None,
) -> None:
    """Write a finished run as the file that a sparse decoder reads."""
    with exit_codes():
        from .core.any_run import open_any_run
        from .present.comparison_text import head_file_text
        from .reports.formats._base import ExportOptions
        from .reports.head_files import export_heads, is_head_file, read_head_file

        options = ExportOptions(score, budget, top)
        source = read_head_file(given) if is_head_file(given) else open_any_run(given)
        file, place = export_heads(source, to, out_, options)
        out.print(head_file_text(file))
        written(to, place)


def import_(
    path: Annotated[Path, typer.Argument(help="File or folder of a sparse decoder.")],
    out_: Annotated[Path, typer.Option("--out", help="JSON to write.")],
    form: Annotated[str | None, typer.Option("--from", help=f"{NAMES}.", show_default="found out")] = None,
    model: Annotated[
        str | None, typer.Option(help="Hold it against this model: folder, hub id, config.json or shipped shape.")
    ] = None,
) -> None:
    """Read a sparse decoder's head file, check it, and write it as one JSON form for all."""
    with exit_codes():
        from .present.comparison_text import head_file_text
        from .reports.head_files import detect_format, fit, read_head_file

        if form is None:
            form = detect_format(path)
            out.print(f"format: {form}", highlight=False)
        file = read_head_file(path, form)
        if model is not None:
            file = fit(file, *_shape(model), model)
        _write_head_file(out_, file)
        out.print(head_file_text(file))
        written("head file", out_)


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="Run directory, imported JSON or a decoder's file.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The same, of a model of the same shape.")],
    top: Annotated[
        int | None, typer.Option(min=1, help="Heads in a set.", show_default="as many as a file lists, else 5%")
    ] = None,
    score: Annotated[str, typer.Option(help=f"Of runs. {_SCORE}")] = "retrieval",
    figure: Annotated[Path | None, typer.Option(help="Write a scatter plot there, as HTML.")] = None,
    out_: Annotated[Path | None, typer.Option("--out", help="Write the comparison there, as JSON.")] = None,
) -> None:
    """Compare two sources of head scores: overlap against chance, rank correlation, labels."""
    with exit_codes():
        from .core.head_comparison import HeadComparison
        from .core.place import check_file, write_file
        from .core.run_folder import read_text
        from .present.comparison_text import comparison_text
        from .reports.head_comparison import compare_heads

        def same(place: Path) -> object:
            return HeadComparison.from_json(read_text(place), str(place))

        what, page_kind = "a comparison in JSON", "a page of a comparison"
        if out_ is not None:
            check_file(out_, what, same)
        if figure is not None:
            from .present.comparison_html import check_page, comparison_page

            check_file(figure, page_kind, check_page)
        found = compare_heads(first, second, score, top)
        page = comparison_page(found) if figure is not None else ""
        if out_ is not None:
            write_file(out_, found.to_json().encode(), what, same)
        if figure is not None:
            write_file(figure, page.encode(), page_kind, check_page)
        out.print(comparison_text(found))
        for name, place in (("comparison", out_), ("figure", figure)):
            if place is not None:
                written(name, place)


def _write_head_file(path: Path, file: HeadFile) -> None:
    from .core.head_file import HeadFile
    from .core.place import write_file
    from .core.run_folder import read_text

    def same(place: Path) -> object:
        return HeadFile.from_json(read_text(place), str(place))

    write_file(path, file.to_json().encode(), "an imported head file", same)


def _shape(model: str) -> tuple[int, int, int]:
    from .core.errors import UnsupportedModelError
    from .models._config import read_config
    from .models._refusals import text_config
    from .models._source import find_source, shape_names

    alone = model in shape_names() or model.endswith(".json")
    source = find_source(None, model, random_weights=True) if alone else find_source(model, random_weights=True)
    config = text_config(read_config(source))
    layers, heads = (getattr(config, name, None) for name in ("num_hidden_layers", "num_attention_heads"))
    if not isinstance(layers, int) or not isinstance(heads, int):
        raise UnsupportedModelError(f"model {model!r}", found="no number of layers and heads", expected="both")
    return layers, heads, getattr(config, "num_key_value_heads", None) or heads
