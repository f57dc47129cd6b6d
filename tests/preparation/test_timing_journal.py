from lungdet_mmdet.preparation.cohort_preparation import JOURNAL_NAME, TimingJournal


def test_a_killed_run_leaves_its_seconds_to_the_next(tmp_path):
    TimingJournal(tmp_path, {}).add("a", 1.23456)
    journal = TimingJournal(tmp_path, {"a": 9.0, "b": 2.0})
    assert journal.seconds == {"a": 1.235, "b": 2.0}


def test_a_line_cut_off_is_dropped_and_the_next_one_is_whole(tmp_path):
    (tmp_path / JOURNAL_NAME).write_text('["a", 1.0]\n["b", 2')
    TimingJournal(tmp_path, {}).add("c", 3.0)
    assert TimingJournal(tmp_path, {}).seconds == {"a": 1.0, "c": 3.0}


def test_a_finished_run_leaves_no_journal(tmp_path):
    journal = TimingJournal(tmp_path, {})
    journal.add("a", 1.0)
    journal.close()
    journal.close()
    assert list(tmp_path.iterdir()) == []
