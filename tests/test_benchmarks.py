"""The benchmarks' command line; the benchmarks themselves take too long to run here."""

import pytest

from benchmarks import __main__ as benchmarks


def test_without_a_name_the_benchmarks_are_listed(capsys):
    assert benchmarks.main([]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert (
        listed
        == benchmarks.names()
        == ["attention", "grading", "ngram", "recurrent", "tokenizer", "transformer"]
    )


def test_an_unknown_name_lists_those_there_are(capsys):
    with pytest.raises(SystemExit) as stop:
        benchmarks.main(["ngrams"])
    assert stop.value.code == 2
    known = "attention, grading, ngram, recurrent, tokenizer, transformer"
    assert f"no benchmark 'ngrams'; there are: {known}" in capsys.readouterr().err


def test_a_table_has_a_column_for_every_key_of_any_row():
    rows = [{"what": "fit", "ours": 0.123456, "times": 2000.4}, {"what": "same", "equal": True}]
    lines = ["| what | ours | times | equal |", "| --- | --- | --- | --- |"]
    lines += ["| fit | 0.123 | 2,000 |  |", "| same |  |  | yes |"]
    assert benchmarks.as_table(rows) == "\n".join(lines)


@pytest.mark.slow
def test_the_ngram_benchmark_finds_what_nltk_finds():
    from benchmarks import ngram

    perplexities = next(row for row in ngram.main() if row["what"].startswith("perplexity"))
    # The definitions differ at the starts of documents and at the lowest order: by far less than 2 %.
    assert float(perplexities["ours"]) == pytest.approx(float(perplexities["NLTK"]), rel=0.02)
