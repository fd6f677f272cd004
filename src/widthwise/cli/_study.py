"""How a study's result is printed and saved."""

import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from widthwise.core import write_text
from widthwise.report import to_png
from widthwise.studies import Finding, StudyResult


def print_study(result: StudyResult, console: Console) -> None:
    """Claims with predicted and measured values and a verdict each."""
    console.print(f"[bold]{escape(result.title)}[/bold]\n{escape(result.setting)}\n")
    claims = {claim.key: claim for claim in result.claims}
    for finding in result.findings:
        claim = claims[finding.claim]
        verdict = "[green]holds[/green]" if finding.holds else "[red]does not hold[/red]"
        console.print(
            f"{verdict}  {escape(claim.statement)}  [dim]({escape(claim.source)}; {escape(claim.tolerance)})[/dim]"
        )
        if claim.shortfall:
            console.print(f"[yellow]Known shortfall:[/yellow] {escape(claim.shortfall)}")
        console.print(_table(finding))
        console.print(f"[dim]{escape(finding.detail)}[/dim]\n")
    held = sum(finding.holds for finding in result.findings)
    console.print(f"{held} of {len(result.findings)} claims hold; {result.seconds:.0f} s at scale {result.scale}.")


def _table(finding: Finding) -> Table:
    table = Table("", "predicted", "measured", "± s.e.", box=None, padding=(0, 2))
    spread = finding.uncertainty or (0.0,) * len(finding.rows)
    for row in zip(finding.rows, finding.predicted, finding.measured, spread, strict=True):
        name, predicted, measured, error = row
        table.add_row(escape(name), f"{predicted:.5g}", f"{measured:.5g}", f"{error:.2g}" if error else "")
    return table


def save_study(result: StudyResult, folder: Path) -> None:
    """Write ``result.json`` and a PNG per figure."""
    for name, figure in result.figures.items():
        to_png(figure, folder / f"{name}.png")
    write_text(folder / "result.json", json.dumps(result.to_dict(), indent=2) + "\n")
