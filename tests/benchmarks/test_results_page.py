"""Tables of the results page from made-up runs."""

from __future__ import annotations

from benchmarks.results_page import main


def test_the_tables_are_made_of_what_has_been_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "runs" / "compare" / "reports"
    place.mkdir(parents=True)
    lines = ["method,base,seed,exact_match,checked_match_forced,collapse,gain_decile_1"]
    lines += ["gm_clipped,reports-base,1,0.5,0.75,0.0,", "gm_clipped,reports-base,0,0.5,1.0,1.0,"]
    lines += ["sft,reports-base,0,0.25,0.125,,"]
    (place / "runs.csv").write_text("\n".join(lines))
    for seed, value in enumerate((0.25, 0.75)):
        (place / f"gm_clipped-reports-base-{seed}").mkdir()
        curve = f"step,val/checked_match_forced\n29,0.0\n59,{value}\n"
        (place / f"gm_clipped-reports-base-{seed}" / "metrics.csv").write_text(curve)
    main()
    found = capsys.readouterr().out
    assert "## registers" not in found
    assert "| GeometricMean |  | 1.00 / .75 |  |  |" in found
    assert "| `gm_clipped` | 2 | 0.500 | - | 0.875 ± 1.588 | - | - | 1 of 2 | - |" in found
    assert "| `sft` | 1 | 0.250 | - | 0.125 | - | - | - | - |" in found
    assert "| clipped | - | - | - | - | 0.50 | - |" in found
