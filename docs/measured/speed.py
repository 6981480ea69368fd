"""How long things take: planning, updates, imagined steps, data, checkpoints, start-up, and pages of the player."""

from collections.abc import Iterable, Mapping
from typing import Any

from .page import Result, Section, Table, compare, measured, number

NO_DEADLINE = "no deadline"


def planning_speed(result: Result) -> Section:
    works = [[row for row in result["rows"] if row["name"].startswith(work)] for work in ("plan, TD-MPC2", "plan, CEM")]
    target, products = result["target"], result["matrix_products"]
    return Section(
        "A planning decision",
        "CPU time of a decision beside the peer in the same run, and wall time of each planner.",
        (*map(compare, works), published(result), planners(result["rows"])),
        (
            f"Target of {target['name']}: {target['value']} {target['unit']}, {target['what']}. Its matrix products "
            f"alone take {products['value']} {products['unit']} in {products['dtype']}, at "
            f"{products['gflop_per_second']} GFLOP/s.",
        ),
    )


def published(result: Result) -> Table:
    """A peer's published figures beside what the same code took here, in one run."""
    rows = []
    for figure in result["reference"]["rows"]:
        here = next(
            row
            for row in result["rows"]
            if row["name"] == figure["name"] and row["source"].startswith(figure["source"])
        )
        factor = number(here["value"] / figure["value"], 2)
        rows.append((figure["name"], figure["source"], measured(figure["value"]), measured(here["value"]), factor))
    columns = ("what", "peer", "published, CPU-ms", "here, CPU-ms", "factor")
    return Table(columns, rows, f"Peers, {result['reference']['source']}; compare figures of one run only:")


def planners(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Median and slowest milliseconds of each search, by the number of environments."""
    found = {row["name"]: row for row in rows if "environment" in row["name"]}
    searches = list(dict.fromkeys(", ".join(name.split(", ")[:2]) for name in found))
    counts = list(dict.fromkeys(name.split(", ")[2] for name in found))
    cells = [(search, *(milliseconds(found, f"{search}, {count}") for count in counts)) for search in searches]
    return Table(("search", *counts), cells, "Wall ms of a decision, the median and the slowest:")


def milliseconds(found: Mapping[str, Mapping[str, Any]], name: str) -> str:
    return f"{measured(found[name]['value'])} / {measured(found[f'{name}, slowest']['value'])} ({found[name]['dtype']})"


def side_by_side(result: Result) -> Section:
    """Every benchmark of two checkouts, measured in turns."""
    rows = [
        (row["name"], measured(row["before"]), measured(row["after"]), row["unit"], number(row["ratio"], 3))
        for row in result["rows"]
    ]
    return Section(
        "The redesign beside the commit before",
        f"The best of {result['rounds']} rounds of each, taken in turns. Ratio: speed after over speed before.",
        (Table(("what", "before", "after", "unit", "ratio"), rows),),
    )


def belief_memory(result: Result) -> Section:
    """What consumers add to memory when beliefs share a cache."""
    columns = ("what", "added, MB", "at most, MB", "if nothing were shared, MB")
    rows = [(row["name"], *(measured(row[key]) for key in ("value", "most", "unshared"))) for row in result["rows"]]
    return Section(
        "Memory of beliefs that share a cache",
        "A fake family whose belief holds a cache of keys and values; peak memory that each consumer adds.",
        (Table(columns, rows),),
    )


def planning_curve(result: Result) -> Section:
    task = result["env"].removeprefix("dmc:")
    values = {row["name"]: row["value"] for row in result["rows"]}
    parts = [name.split(", ") for name in values]
    planners, deadlines = (list(dict.fromkeys(part[place] for part in parts)) for place in (1, 2))
    seeds = next(name.split("return of ")[1] for name in values if "return of " in name)

    def cell(planner: str, deadline: str) -> str:
        at = f"{task}, {planner}, {deadline}"
        late = values[f"{at}, late decisions"]
        return f"{number(values[f'{at}, return of {seeds}'])} ({number(late, 1)} %)"

    return Section(
        f"Return over the time of a decision: {task}",
        f"Mean return of {seeds} on which nothing was chosen; in brackets the share of late decisions.",
        (Table(("planner", *deadlines), [(p, *(cell(p, d) for d in deadlines)) for p in planners]),),
        picture=f"planning_curve_{task}.svg",
    )


def planning_precision(result: Result) -> Section:
    return Section(
        "Plans in bf16 and in fp32", "Whether both precisions choose the same plan.", (compare(result["rows"]),)
    )


def rssm_update(result: Result) -> Section:
    return Section(
        "A DreamerV3 update",
        "One whole update of model, actor and critic at equal parameter count, beside the peers in one run.",
        (compare(result["rows"]), published(result)),
    )


def imagination(result: Result) -> Section:
    imagined = [row for row in result["rows"] if ", batch " in row["name"]]
    values = {row["name"]: row["value"] for row in imagined}
    models = list(dict.fromkeys(name.split(", batch ")[0] for name in values))
    batches = list(dict.fromkeys(name.split(", batch ")[1] for name in values))
    cells = [(model, *(measured(values[f"{model}, batch {batch}"]) for batch in batches)) for model in models]
    worlds = [(row["name"], measured(row["value"])) for row in result["rows"] if row not in imagined]
    return Section(
        "Imagined steps per second",
        "Reward and termination are decoded, and every key where the row says so.",
        (
            Table(("model", *(f"batch {batch}" for batch in batches)), cells, "Imagined steps per second:"),
            Table(("environment", "real steps per second"), worlds),
        ),
    )


def data_loading(result: Result) -> Section:
    return Section("Reading windows from the cache", "Frames with their actions, one core.", (compare(result["rows"]),))


def checkpoint(result: Result) -> Section:
    return Section("Checkpoints", "Saving and loading beside `torch.save`.", (compare(result["rows"]),))


def startup(result: Result) -> Section:
    return Section("Start-up", "Whole processes, from start to end.", (compare(result["rows"]),))


def play(result: Result) -> Section:
    alone, at_rate, many = (result[pages] for pages in ("one_page", "one_page_at_30", "twenty_pages_at_10"))
    latency = [
        ("one page, as fast as it asks", number(alone["frames_per_second"]), times(alone)),
        ("one page at a fixed rate", "-", times(at_rate)),
        ("twenty pages at a fixed rate", number(many["frames_per_second"]), times(many)),
    ]
    memory = [
        ("a page that does nothing, KB", number(result["kilobytes_per_idle_session"])),
        ("a thousand nodes, each of which can be returned to, MB", number(result["megabytes_per_1000_moments"])),
    ]
    soak = result["soak"]
    load = [(part, number(value)) for part, value in soak["megabytes"].items()]
    return Section(
        "`worldloom play`",
        f"{result['what'].capitalize()}.",
        (
            Table(("pages", "frames/s together", "ms from key to frame, median / 95th percentile"), latency),
            Table(("memory of", "measured"), memory),
            Table((f"{soak['pages']} pages for {number(soak['minutes'])} min", "largest memory, MB"), load),
        ),
        (f"The last table is {soak['note']}.",),
    )


def times(page: Mapping[str, float]) -> str:
    return f"{number(page['p50_ms'])} / {number(page['p95_ms'])}"
