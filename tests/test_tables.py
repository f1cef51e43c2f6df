"The paper's tables: rows share jobs, the runner finishes what is left, the report says what the figures say."
import csv
import json
import time
from types import SimpleNamespace

import pytest
from commands import films, rows, table
from corpora import says
from experiments import plan, report, run
from experiments.findings import (FAILS, HOLDS, MEASURES, OPEN, Difference, Results, best_epochs, claims_table,
                                  cost_table, mcnemar_table)
from experiments.plan import Job, Scale, names, read_toml
from fastcore.script import CliError
from ulmfit.corpus import source
from ulmfit.locks import alone
from ulmfit.training.checkpoint import Checkpoints
from ulmfit.training.optimizers import Optimization, group_factors
from ulmfit.training.settings import preset

TIMINGS = ("seconds", "documents_per_second", "tokens_per_second", "peak_memory_mib")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A corpus, a dataset, the scale `smoke` on them, and a library of its own."
    root = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "ROOT", root / "data")
        patch.delenv("ULMFIT_DATA", raising=False)
        text = root / "text.txt"
        text.write_text("\n\n".join(t for t, _ in films(8, 2)))
        table(root / "films/train.csv", films(14, 0))
        table(root / "films/test.csv", films(6, 1))
        scale = root / "tiny.toml"
        smoke = (plan.HERE / "scales/smoke.toml").read_text().replace('corpus = "pydocs"', f'corpus = "{text}"')
        scale.write_text(smoke.replace("[datasets.pydocs]", f'[datasets."{root / "films"}"]'))
        patch.setattr(run, "PATIENCE", 0.1)
        yield SimpleNamespace(root=root, scale=str(scale))


def runner(place, tables=(), name="runs", results="results", **how):
    run.main(tables=[*tables], scale=place.scale, root=place.root / name, results=place.root / results, **how)


def written(place, results="results") -> list[dict]:
    found = rows((place.root / results / "tiny.csv").read_text())
    return [{k: v for k, v in r.items() if k not in TIMINGS} for r in found]


@pytest.fixture(scope="module")
def everything(place):
    "All tables, finished, by two runners that share the work."
    other = run.FORK.Process(target=runner, args=(place,))
    other.start()
    runner(place)
    other.join()
    assert other.exitcode == 0
    return written(place)


# --- the plan ---

def test_every_row_of_every_table_has_its_figure(place, everything):
    for name in names("tables"):
        about, there = read_toml("tables", name), [r for r in everything if r["table"] == name]
        assert [r["name"] for r in about["row"]] == list(dict.fromkeys(
            r["name"] for r in about["row"] if any(f["row"] == r["name"] and f[about["measure"]] for f in there)))


def test_rows_with_a_stage_in_common_share_its_job(place):
    cells = {c.row: c for c in Scale(place.scale).cells("table7")}
    lms = {c.job.models[0].key for c in cells.values()}
    assert len(lms) == 1 and len({c.job.key for c in cells.values()}) == len(cells)


def test_a_row_of_the_recipe_changes_how_its_model_is_pretrained(place):
    cells = Scale(place.scale).cells("recipe")
    first, *others = [next(c.job.needs()) for c in cells]
    assert {j.stage for j in (first, *others)} == {"pretrain"}
    for row, job in zip(read_toml("tables", "recipe")["row"][1:], others):
        assert job.flags == first.flags | row["pretrain"]


def test_a_claim_is_about_rows_that_there_are():
    for name in names("tables"):
        about = read_toml("tables", name)
        there = {r["name"] for r in about["row"]}
        for claim in about.get("claim", []): assert {claim["better"], claim["than"]} <= there, name


def test_few_labels_change_what_the_scale_says(place, tmp_path):
    scale = tmp_path / "few.toml"
    scale.write_text((place.root / "tiny.toml").read_text() + "few = { labelled = 9, classify = { epochs = 7 } }\n")
    epochs = [Scale(str(scale)).job(dict(name="r"), str(place.root / "films"), n, 0).flags.get("epochs")
              for n in (0, 9, 10)]
    assert epochs[1] == 7 and epochs[0] == epochs[2] != 7


def test_a_row_may_test_on_more_than_the_scale_says(place, tmp_path):
    scale, films = tmp_path / "some.toml", str(place.root / "films")
    scale.write_text((place.root / "tiny.toml").read_text() + "held_out = { valid_fraction = 0.1, tested = 4 }\n")
    for kind in ("classifier", "features", "bag of words"):
        some, all_of_it = (Scale(str(scale)).job(dict(name="r", kind=kind) | more, films, 0, 0).flags
                           for more in ({}, dict(held_out=dict(tested=0))))
        assert (some["tested"], all_of_it["tested"]) == (4, 0)
        assert some["valid_fraction"] == all_of_it["valid_fraction"] == 0.1


@pytest.mark.parametrize("change", [
    dict(flags=dict(lr=0.1)), dict(seed=1), dict(preset="small"), dict(stage="finetune_lm"), dict(models=()),
    dict(flags=dict(backwards=True))])
def test_whatever_decides_the_result_changes_the_key(place, change):
    data = str(place.root / "films")
    base = dict(stage="classify", data=data, flags={}, preset="demo", models=(Job("finetune_lm", data, {}, "demo"),))
    assert Job(**base).key == Job(**base).key != Job(**base | change).key


def test_a_default_that_is_given_changes_nothing(place):
    data = str(place.root / "films")
    assert Job("classify", data, {}, "demo").key == Job("classify", data, dict(optimizer="adam"), "demo").key


def test_other_data_is_another_job(place):
    data = place.root / "more.csv"
    table(data, films(4, 5))
    before = Job("classify", str(data), {}, "demo").key
    table(data, films(4, 6))
    plan.opened.cache_clear()
    assert Job("classify", str(data), {}, "demo").key != before


@pytest.mark.parametrize("scale", names("scales"))
def test_the_rates_that_a_row_gives_fit_the_models_of_each_scale(scale):
    layers = preset(Scale(scale).preset, "classify")["layers"]
    for name in names("tables"):
        for row in read_toml("tables", name)["row"]:
            rates = row.get("classify", {}).get("rates", [])
            assert len(group_factors(Optimization(rates=rates), layers + 2)) == layers + 2


def test_a_language_model_from_nothing_has_what_its_preset_wants_then(place):
    data = str(place.root / "films")
    def key(*models): return Job("finetune_lm", data, {}, "demo", models).key
    def given(*models): return Job("finetune_lm", data, dict(discriminative=1.0), "demo", models).key
    assert key("none") == given("none") and key() != given()


def test_features_are_of_as_much_of_a_document_as_a_classifier_reads(place):
    jobs = [Scale(place.scale).job(dict(name="r", kind=kind), str(place.root / "films"), 0, 0)
            for kind in ("features", "classifier")]
    assert [j.flags["max_length"] for j in jobs] == [40, 40]


def test_a_row_of_an_unknown_kind_is_refused_by_name(place):
    with says("no kind of row is called 'x'; there are: classifier"):
        Scale(place.scale).job(dict(name="r", kind="x"), str(place.root / "films"), 0, 0)


# --- the runner ---

def test_what_is_finished_is_not_run_again(place, everything, capsys):
    began = [p.stat().st_mtime_ns for p in sorted((place.root / "runs").glob("*/run.json"))]
    runner(place)
    assert " 0 jobs to do" in capsys.readouterr().out
    assert [p.stat().st_mtime_ns for p in sorted((place.root / "runs").glob("*/run.json"))] == began
    assert written(place) == everything


def test_figures_of_another_machine_are_enough(place, everything, capsys, tmp_path):
    "Without any run, the results say what is finished."
    runner(place, ["4"], name="elsewhere")
    assert " 0 jobs to do" in capsys.readouterr().out and written(place) == everything


def test_a_runner_that_is_killed_and_started_again_writes_the_same(place, everything):
    for seconds in (0.3, 0.7, 1.1):
        process = run.FORK.Process(target=runner, args=(place, ["4"], "killed", "killed"))
        process.start()
        time.sleep(seconds)
        process.kill()
        process.join()
    runner(place, ["4"], "killed", "killed")
    def told(found): return [{k: v for k, v in r.items() if k != "command"} for r in found if r["table"] == "table4"]
    assert told(written(place, "killed")) == told(everything)


@pytest.mark.parametrize("dtype, precision", [("torch.bfloat16", "bf16"), ("torch.float32", "fp32")])
def test_an_interrupted_job_goes_on_in_the_precision_that_it_began_in(place, tmp_path, dtype, precision):
    job = Scale(place.scale).cells("table4")[0].job
    assert job.stage == "classify" and run.as_begun(job, tmp_path) == []
    (tmp_path / job.name).mkdir()
    (tmp_path / job.name / "run.json").write_text(json.dumps(dict(dtype=dtype)))
    assert run.as_begun(job, tmp_path) == ["--precision", precision]


def test_a_job_that_fails_is_reported_and_the_others_run(place, monkeypatch, capsys, tmp_path):
    own = run.execute

    def failing(job, root):
        if job.stage == "finetune_lm" and "none" in job.models:
            log = (root / job.name).with_suffix(".log")
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text("no such luck\n")
            return "failed"
        return own(job, root)
    monkeypatch.setattr(run, "execute", failing)
    with says("2 of 5 jobs have failed"): runner(place, ["4"], "failing", "failing")
    said = capsys.readouterr().err
    assert "no such luck" in said and "it needs finetune_lm-films-" in said
    assert [r["row"] for r in written(place, "failing")] == ["With pretraining"]


def test_a_job_says_why_it_failed(tmp_path):
    job = Job("counts", str(tmp_path / "missing.csv"), dict(of="train"))
    job.__dict__["key"] = "0" * 12
    assert run.execute(job, tmp_path) == "failed" and "missing.csv is neither" in run.last_line(job, tmp_path)


def test_what_another_runner_has_is_left_to_it(place, everything):
    job = Scale(place.scale).cells("table4")[0].job
    root = place.root / "locked"
    root.mkdir()
    with alone((root / job.name).with_suffix(".lock"), ""): assert run.execute(job, root) == "elsewhere"


def test_a_command_that_another_process_is_at_is_left_to_it(place):
    "Not the runner's lock: the run's own, as of a command from `--print-commands`."
    job = next(Scale(place.scale).cells("table5")[0].job.needs())
    root = place.root / "typed"
    with Checkpoints(root / job.name / "checkpoint").held(): assert run.execute(job, root) == "elsewhere"
    assert run.execute(job, root) == "done"


def test_data_that_is_not_here_leaves_its_figures_out(place, tmp_path, capsys):
    scale = tmp_path / "more.toml"
    scale.write_text((place.root / "tiny.toml").read_text() + '[datasets.nowhere]\n')
    run.main(tables=["4"], scale=str(scale), root=place.root / "runs", results=tmp_path, dry_run=True)
    assert "left out, 2 figures: nowhere is neither a file" in capsys.readouterr().out


def test_commands_can_be_printed(place, capsys):
    runner(place, ["4"], "none", "none", print_commands=True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == [
        "ulmfit.finetune_lm", "ulmfit.classify", "ulmfit.pretrain", "ulmfit.finetune_lm", "ulmfit.classify"]


def test_a_dataset_that_the_scale_lacks(place):
    with says("has no mnist; it has:"): runner(place, ["4"], datasets="mnist")


def test_hours_are_those_of_finished_jobs(tmp_path):
    for name, seconds in ("classify-a-1", 3600), ("classify-a-2", 7200), ("classify-b-1", 1800):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(f'{{"seconds": {seconds}}}')
    def job(stage, data): return SimpleNamespace(stage=stage, name=f"{stage}-{data}-9")
    assert run.hours([job("classify", "a")], tmp_path, []) == (1.5, 0)
    assert run.hours([job("classify", "c"), job("pretrain", "a")], tmp_path, []) == (1.0, 1)


def test_hours_are_those_of_figures_from_elsewhere(tmp_path):
    def job(stage, data): return SimpleNamespace(stage=stage, name=f"{stage}-{data}-9")
    told = [dict(run="classify-a-1", seconds="9000 + 3600 + 1800"), dict(run="evaluate-a-2", seconds="5 + 6 + 36")]
    found = [run.hours([job(stage, "a")], tmp_path, told) for stage in ("classify", "finetune_lm", "evaluate")]
    assert found == [(0.5, 0), (1.0, 0), (0.01, 0)]


def test_what_is_no_longer_at_hand_of_the_same_run_is_kept():
    old = dict(run="a", seconds="60 + 10", valid_perplexity="9", commit="1, 2", test_error="5")
    new = dict(run="a", seconds="10", commit="3", test_error=4.0)
    assert run.kept(old, new) == dict(run="a", seconds="60 + 10", valid_perplexity="9", commit="3", test_error=4.0)
    assert run.kept(old, new | dict(run="b")) == new | dict(run="b")


def test_a_dot_in_the_name_of_data_is_no_suffix(tmp_path):
    assert run.beside(tmp_path / "classify-a.csv-1", "lock").name == "classify-a.csv-1.lock"


def test_the_first_row_is_what_mcnemar_compares_with(everything):
    of = [r for r in everything if r["table"] == "table7" and r["only_wrong"]]
    assert of[0]["row"] == "Chain-thaw" and {r["only_wrong"] for r in of if r["row"] == "From scratch"} == {"0"}
    for r in of: assert 0 <= int(r["only_wrong"]) <= int(r["test_documents"])


def test_each_seed_is_a_test_of_mcnemar_of_its_own(tmp_path):
    head = "table,row,dataset,labelled,seed,only_wrong,only_first_wrong"
    (tmp_path / "s.csv").write_text("\n".join([head, "t,a,d,0,0,0,6", "t,a,d,0,1,2,2", "t,a,d,0,2,1,7"]))
    table = mcnemar_table(Results(tmp_path / "s.csv"), "t", dict(row=[dict(name="a")]))
    assert table[1] == [["a", "d", "1", "5", "0.07"]]  # of 0.031, 1, 0.07


# --- the report ---

@pytest.mark.parametrize("pairs, verdict, told", [
    ([(1, 3), (1, 3.1), (1, 2.9)], HOLDS, "+2.00 ± 0.25"), ([(3, 1), (3, 1.1), (3, 0.9)], FAILS, "-2.00 ± 0.25"),
    ([(1, 3), (3, 1), (2, 2)], OPEN, "+0.00 ± 4.97"), ([(1, 3)], OPEN, "+2.00 (one seed)")])
def test_a_claim_holds_where_its_whole_interval_does(pairs, verdict, told):
    d = Difference(pairs)
    assert (d.verdict, str(d)) == (verdict, told)


def test_the_report_has_every_row_and_stays_the_same(place, everything):
    out = place.root / "report"
    out.mkdir()
    report.main(results=place.root / "results", out=out)
    text, page = (out / "REPORT.md").read_text(), (out / "report.html").read_text()
    for name in names("tables"):
        about = read_toml("tables", name)
        assert about["title"] in text and all(f"| {r['name']} |" in text for r in about["row"])
        assert all(MEASURES[m] in text for m in (about["measure"], *about.get("also", [])))
    assert page.count("<svg") == 7 and "python -m ulmfit.classify" in page and "<script" not in page
    report.main(results=place.root / "results", out=out)
    assert ((out / "REPORT.md").read_text(), (out / "report.html").read_text()) == (text, page)


def test_papers_figures_are_of_rows_that_there_are():
    with open(plan.HERE / "paper.csv") as f: paper = list(csv.DictReader(f))
    for r in paper: assert r["row"] in {row["name"] for row in read_toml("tables", r["table"])["row"]}, r


def claims(tmp_path, counts: str) -> list[str]:
    "The verdicts on one claim, of validation and of test documents, three seeds agreeing."
    head = "table,row,dataset,labelled,seed,valid_error,test_error,only_wrong,only_first_wrong,run"
    lines = [f"t,a,d,0,{s},{s},{s},0,0,a{s}\nt,b,d,0,{s},{s + 2},{s + 3},{counts},b{s}" for s in range(3)]
    (tmp_path / "s.csv").write_text("\n".join([head, *lines]))
    claim = dict(text="a is better", better="a", than="b")
    about = dict(measure="valid_error", row=[dict(name="a"), dict(name="b")], claim=[claim])
    (row,) = claims_table(Results(tmp_path / "s.csv"), "t", about)[1]
    return row


def test_claims_are_judged_on_test_documents_too(tmp_path):
    assert claims(tmp_path, "30,5") == ["a is better", "d", HOLDS, "+2.00 ± 0.00", "", HOLDS, "+3.00 ± 0.00"]


def test_what_chance_does_with_the_test_documents_is_no_verdict_on_them(tmp_path):
    assert claims(tmp_path, "8,5")[5] == OPEN and claims(tmp_path, "8,5")[2] == HOLDS


def test_a_row_is_not_compared_with_itself(tmp_path):
    head = "table,row,dataset,labelled,seed,valid_error,test_error,run"
    (tmp_path / "s.csv").write_text("\n".join([head, "t,a,d,0,0,1,2,same", "t,b,d,0,0,1,2,same"]))
    about = dict(measure="valid_error", row=[dict(name="a"), dict(name="b")],
                 claim=[dict(text="c", better="a", than="b")])
    assert claims_table(Results(tmp_path / "s.csv"), "t", about)[1] == []


def test_the_report_says_which_rows_have_their_best_epoch():
    best = dict(name="Full", classify=dict(keep_best=True))
    assert "favours them: Full." in best_epochs(dict(measure="valid_error", row=[best, dict(name="Freez")]))
    assert not best_epochs(dict(measure="valid_error", row=[best]))
    assert not best_epochs(dict(measure="test_error", row=[best, dict(name="Freez")]))


def test_means_are_over_the_seeds(tmp_path):
    head = "table,row,dataset,labelled,seed,valid_error"
    (tmp_path / "s.csv").write_text("\n".join([head, "t,a,d,0,0,2", "t,a,d,0,1,4", "t,b,d,0,1,1"]))
    found = Results(tmp_path / "s.csv")
    assert found.errors("t", "a", ("d", "0"), "valid_error") == {"0": 2, "1": 4}
    assert found.difference("t", "b", "a", ("d", "0"), "valid_error").pairs == [(1, 4)]


def test_costs_are_told_stage_by_stage(tmp_path):
    head = "table,row,dataset,labelled,seed,seconds,documents_per_second,tokens_per_second,peak_memory_mib"
    (tmp_path / "s.csv").write_text("\n".join([head, "t,a,d,0,0,60 + 120,2,10,5 + 7", "t,a,d,0,1,120 + 240,4,20,7 + 9",
                                               "t,a,e,0,0,6,,,"]))
    _, told = cost_table(Results(tmp_path / "s.csv"), "t", dict(row=[dict(name="a"), dict(name="b")]))
    assert told == [["a", "d", "1.5 + 3.0", "3.0", "15", "6 + 8"], ["a", "e", "0.1", "", "", ""]]


def test_the_cost_of_a_figure_is_that_of_all_its_stages(place, everything):
    found = {r["row"]: r for r in rows((place.root / "results/tiny.csv").read_text()) if r["table"] == "stages"}
    ulmfit, words = found["ULMFiT"], found["Bag of words + logistic regression"]
    assert [len(ulmfit[k].split(run.EACH)) for k in ("seconds", "peak_memory_mib")] == [3, 3]
    assert float(words["seconds"]) >= 0 and words["peak_memory_mib"] == ""


def test_a_report_of_nothing(tmp_path):
    with pytest.raises(CliError, match="no figures in .* yet"): report.main(results=tmp_path, out=tmp_path)


def test_all_labels_are_as_many_as_there_are_but_for_validation(tmp_path):
    head = "table,row,dataset,labelled,seed,value,valid_documents"
    (tmp_path / "s.csv").write_text("\n".join([head, "table1,Training examples,d,0,0,100,", "t,a,d,0,0,,10",
                                               "t,a,d,50,0,,10", "t,a,e,0,0,,10"]))
    found = Results(tmp_path / "s.csv")
    assert [report.labels(found, "t", c) for c in found.columns("t")] == [50, 90, 0]
