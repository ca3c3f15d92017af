import contextlib
import json
import types

import lightning as L
import pytest
import torch
from jsonargparse import ArgumentParser

from nrt_lightning.data import ChatTemplate, FileSource, Messages, PlainTemplate, QADataModule, QASource, QuestionAnswer
from nrt_lightning.errors import InputError
from nrt_lightning.structures import Prompts, Row


class Recorder(L.LightningModule):
    """Writes down the rows it is given."""

    def __init__(self, tokenizer):
        super().__init__()
        if tokenizer is not None:
            self.policy = types.SimpleNamespace(tokenizer=tokenizer)
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = {"train": [], "val": [], "test": [], "predict": []}

    def note(self, split, batch):
        assert isinstance(batch, Prompts)
        self.seen[split].append((tuple(row.id for row in batch.rows), batch.window.index))
        return self.weight * batch.prompt_ids.sum()

    def training_step(self, batch, batch_idx):
        return self.note("train", batch)

    def validation_step(self, batch, batch_idx):
        self.note("val", batch)

    def test_step(self, batch, batch_idx):
        self.note("test", batch)

    def predict_step(self, batch, batch_idx):
        self.note("predict", batch)
        return [row.id for row in batch.rows]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Killed(Exception):
    pass


class SaveAndKill(L.Callback):
    """Saves after a number of micro-batches, at the epoch's end if they end it, and ends the run there."""

    def __init__(self, after, path):
        self.after, self.path = after, path

    def save_and_kill(self, trainer, module):
        if len(module.seen["train"]) == self.after:
            trainer.save_checkpoint(self.path)
            raise Killed

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if not trainer.is_last_batch:
            self.save_and_kill(trainer, module)

    def on_train_epoch_end(self, trainer, module):
        self.save_and_kill(trainer, module)


def run(tokenizer, data, ckpt_path=None, kill=None, **settings):
    """The training rows seen."""
    recorder = Recorder(tokenizer)
    trainer = make_trainer(callbacks=[kill] if kill else [], **settings)
    with pytest.raises(Killed) if kill else contextlib.nullcontext():
        trainer.fit(recorder, data, ckpt_path=ckpt_path)
    return recorder.seen["train"]


def make_trainer(**settings):
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "accelerator": "cpu",
    }
    return L.Trainer(**(quiet | settings))


def ids(split):
    return [row_id for batch, _ in split for row_id in batch]


def test_alone_with_a_tokenizer(sums_file, tokenizer_dir):
    data = QADataModule(
        train=str(sums_file), val=str(sums_file), max_val_rows=3, batch_size=2, window=2, tokenizer=tokenizer_dir
    )
    data.setup()
    batches = list(data.train_dataloader())
    assert len(batches) == len(data.train_dataloader()) == 4
    assert batches[0].prompt_ids.shape[0] == 4
    assert [batch.window.index for batch in batches] == [0, 1, 0, 1]
    assert [[row.id for row in batch.rows] for batch in data.val_dataloader()] == [["s0", "s1"], ["s2"]]
    with pytest.raises(InputError, match=r"data\.test"):
        data.test_dataloader()


def test_settings_reach_the_encoder(tmp_path, chat_tokenizer):
    path = tmp_path / "d.jsonl"
    turns = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    path.write_text(json.dumps({"messages": turns}))
    data = QADataModule(test=str(path), format=Messages(), template=ChatTemplate("Sum."))
    recorder = Recorder(chat_tokenizer)
    make_trainer().test(recorder, data, verbose=False)
    prompt = "".join(chat_tokenizer.convert_ids_to_tokens(data.encoded["test"][0].prompt_ids))
    assert prompt == "<system>Sum.</s><user>1</s><assistant>"
    assert ids(recorder.seen["test"]) == ["0"]


def test_all_stages_of_a_trainer(sums_file, tmp_path, char_tokenizer):
    unanswered = tmp_path / "ask.jsonl"
    unanswered.write_text("".join(json.dumps({"id": f"p{n}", "question": "1?"}) + "\n" for n in range(5)))
    data = QADataModule(
        train=str(sums_file), val=str(sums_file), test=str(sums_file), predict=str(unanswered),
        max_train_rows=8, max_val_rows=3, max_test_rows=4, batch_size=2, eval_batch_size=3,
    )  # fmt: skip
    recorder, trainer = Recorder(char_tokenizer), make_trainer(max_epochs=2)
    trainer.fit(recorder, data)
    assert recorder.seen["val"] == [(("s0", "s1", "s2"), 0)] * 2
    first, second = ids(recorder.seen["train"][:4]), ids(recorder.seen["train"][4:])
    assert sorted(first) == sorted(second) == [f"s{n}" for n in range(8)]
    assert first != second
    trainer.test(recorder, data, verbose=False)
    assert [batch for batch, _ in recorder.seen["test"]] == [("s0", "s1", "s2"), ("s3",)]
    assert trainer.predict(recorder, data) == [["p0", "p1", "p2"], ["p3", "p4"]]


def test_training_without_validation(sums_file, char_tokenizer):
    recorder = Recorder(char_tokenizer)
    make_trainer(max_epochs=1).fit(recorder, QADataModule(train=str(sums_file), batch_size=5))
    assert len(recorder.seen["train"]) == 2
    assert recorder.seen["val"] == []


def test_validation_rows_out_of_train(sums_file, tokenizer_dir):
    def split(seed, **settings):
        data = QADataModule(train=str(sums_file), val_rows=4, seed=seed, tokenizer=tokenizer_dir, **settings)
        data.setup("fit")
        return [[row.id for row in data.encoded[name].rows] for name in ("train", "val")]

    train, val = split(0)
    assert len(val) == 4
    assert sorted(train + val) == sorted(f"s{n}" for n in range(11))
    assert split(0) == [train, val] != split(1)
    assert len(split(0, max_train_rows=5)[0]) == 5
    data = QADataModule(train=str(sums_file), val_rows=4, tokenizer=tokenizer_dir)
    data.setup("validate")
    assert [row.id for row in data.encoded["val"].rows] == val


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("after", [2, 3, 4, 6, 8])  # at the ends of windows and epochs, and inside a window
def test_resume_sees_the_rest(sums_file, tmp_path, char_tokenizer, workers, after):
    def data():
        return QADataModule(train=str(sums_file), batch_size=2, window=2, num_workers=workers)

    path = tmp_path / "killed.ckpt"
    whole = run(char_tokenizer, data(), max_epochs=3)
    assert len(whole) == 12
    begun = run(char_tokenizer, data(), kill=SaveAndKill(after, path), max_epochs=3)
    assert begun == whole[:after]
    assert run(char_tokenizer, data(), ckpt_path=path, max_epochs=3) == whole[after:]
    torch.load(path, weights_only=True)  # the checkpoint holds no objects


@pytest.mark.parametrize("settings", [{"limit_train_batches": 0.6}, {"reload_dataloaders_every_n_epochs": 1}], ids=str)
@pytest.mark.parametrize("after", [3, 4])
def test_resume_with_trainer_settings(sums_file, tmp_path, char_tokenizer, settings, after):
    def data():
        return QADataModule(train=str(sums_file), batch_size=2, passes=1)

    path, settings = tmp_path / "killed.ckpt", settings | {"max_epochs": 3}
    whole = run(char_tokenizer, data(), **settings)
    assert len(whole) == (9 if "limit_train_batches" in settings else 15)
    assert run(char_tokenizer, data(), kill=SaveAndKill(after, path), **settings) == whole[:after]
    assert run(char_tokenizer, data(), ckpt_path=path, **settings) == whole[after:]


def test_resume_inside_one_long_epoch(sums_file, tmp_path, char_tokenizer):
    def data():
        return QADataModule(train=str(sums_file), batch_size=2, passes=3)

    path = tmp_path / "killed.ckpt"
    whole = run(char_tokenizer, data(), max_epochs=1)
    assert len(whole) == 15
    assert whole == run(char_tokenizer, QADataModule(train=str(sums_file), batch_size=2), max_epochs=3)
    run(char_tokenizer, data(), kill=SaveAndKill(7, path), max_epochs=1)
    assert run(char_tokenizer, data(), ckpt_path=path, max_epochs=1) == whole[7:]


def test_resume_with_other_settings_is_refused(sums_file, tmp_path, char_tokenizer):
    path = tmp_path / "killed.ckpt"
    data = QADataModule(train=str(sums_file), batch_size=2)
    run(char_tokenizer, data, kill=SaveAndKill(2, path), max_epochs=2)
    with pytest.raises(InputError, match=r"batch_size x processes=2 \(now 3\), epoch_steps=5 \(now 3\)"):
        run(char_tokenizer, QADataModule(train=str(sums_file), batch_size=3), ckpt_path=path, max_epochs=2)
    test = QADataModule(test=str(sums_file), batch_size=3)  # nothing is compared where nothing is trained
    make_trainer().test(Recorder(char_tokenizer), test, ckpt_path=path, verbose=False)


def test_a_quick_run_may_cut_a_window(sums_file, char_tokenizer):
    recorder = Recorder(char_tokenizer)
    make_trainer(fast_dev_run=1).fit(recorder, QADataModule(train=str(sums_file), batch_size=2, window=2))
    assert len(recorder.seen["train"]) == 1


def test_a_source_of_ones_own(char_tokenizer):
    class Squares(QASource):
        def __init__(self, answered):
            self.answered = answered

        def rows(self):
            return [
                Row(str(n), [{"role": "user", "content": f"{n}^2"}], str(n * n) if self.answered else None, f"n={n}")
                for n in range(6)
            ]

    recorder = Recorder(char_tokenizer)
    data = QADataModule(train=Squares(True), predict=Squares(False), batch_size=2, max_predict_rows=3)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(recorder, data)
    assert sorted(ids(recorder.seen["train"])) == list("012345")
    assert trainer.predict(recorder, data) == [["0", "1"], ["2"]]
    with pytest.raises(InputError, match=r"train: n=0 "):
        trainer.fit(recorder, QADataModule(train=Squares(False)))


def test_saved_dataset_splits_by_role(tmp_path, tokenizer_dir):
    import datasets

    rows = {
        split: datasets.Dataset.from_list([{"question": split, "answer": "a"}])
        for split in ("train", "validation", "test")
    }
    datasets.DatasetDict(rows).save_to_disk(tmp_path / "d")
    directory = str(tmp_path / "d")
    data = QADataModule(directory, directory, directory, FileSource(directory), tokenizer=tokenizer_dir)
    data.setup()
    questions = {split: encoded.rows[0].question for split, encoded in data.encoded.items()}
    assert questions == {"train": "train", "val": "validation", "test": "test", "predict": "train"}


def test_bad_rows_stop_a_run_before_it_trains(tmp_path, char_tokenizer):
    path = tmp_path / "d.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n{"question": "q", "answer": " "}\n')
    recorder = Recorder(char_tokenizer)
    with pytest.raises(InputError, match=r"d.jsonl:2, column 'answer'"):
        make_trainer(max_epochs=1).fit(recorder, QADataModule(train=str(path), batch_size=1))
    assert recorder.seen["train"] == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"window": 0}, "window=0"),
        ({"eval_batch_size": 0}, "eval_batch_size=0"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"max_train_rows": 0}, "max_train_rows=0"),
        ({"val": "v.jsonl", "val_rows": 1}, "val_rows=1 .*`val`"),
    ],
)
def test_bad_settings_are_refused_at_once(settings, words):
    with pytest.raises(InputError, match=words):
        QADataModule(train="d.jsonl", **settings)


@pytest.mark.parametrize(
    ("data", "trainer", "words"),
    [
        ({"val_rows": 11}, {}, "val_rows=11 .*11 rows"),
        ({"batch_size": 4, "window": 4}, {}, "11 .*rows .*16.*batch_size=4 x window=4"),
        ({"batch_size": 1, "window": 2}, {"limit_train_batches": 5}, "limit_train_batches=5 .*window=2"),
        ({"batch_size": 1}, {"overfit_batches": 2}, "overfit_batches=2 .*max_train_rows"),
        ({"max_prompt_tokens": 3}, {}, "11 of 11 rows.*max_prompt_tokens=3"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(sums_file, char_tokenizer, data, trainer, words):
    recorder = Recorder(char_tokenizer)
    with pytest.raises(InputError, match=words):
        make_trainer(max_epochs=1, **trainer).fit(recorder, QADataModule(train=str(sums_file), **data))
    assert recorder.seen["train"] == []


def test_missing_parts_are_named(sums_file, tmp_path):
    with pytest.raises(InputError, match=r"data\.tokenizer is null.*`policy`"):
        make_trainer(max_epochs=1).fit(Recorder(None), QADataModule(train=str(sums_file)))
    with pytest.raises(InputError, match=r"data\.tokenizer='.*nowhere'"):
        QADataModule(train=str(sums_file), tokenizer=str(tmp_path / "nowhere")).setup()


def test_missing_split_is_named(sums_file, char_tokenizer):
    with pytest.raises(InputError, match=r"data\.test "):
        make_trainer().test(Recorder(char_tokenizer), QADataModule(train=str(sums_file)), verbose=False)
    with pytest.raises(InputError, match=r"data\.train "):
        make_trainer(max_epochs=1).fit(Recorder(char_tokenizer), QADataModule(val=str(sums_file)))
    with pytest.raises(InputError, match=r"data\.train "):
        make_trainer(max_epochs=1).fit(Recorder(char_tokenizer), QADataModule(val_rows=2))
    with pytest.raises(InputError, match=r"data\.val "):
        make_trainer().validate(Recorder(char_tokenizer), QADataModule(val_rows=2), verbose=False)


def test_configurable_by_yaml(sums_file):
    parser = ArgumentParser()
    parser.add_subclass_arguments(QADataModule, "data")
    config = parser.parse_string(f"""
        data:
          class_path: QADataModule
          init_args:
            train:
              class_path: FileSource
              init_args:
                path: {sums_file}
                format:
                  class_path: nrt_lightning.data.Messages
                  init_args: {{column: chat}}
            val: some/file.jsonl
            template:
              class_path: PlainTemplate
              init_args: {{template: "Q: {{question}}"}}
            window: 4
    """)
    data = parser.instantiate(config).data
    assert data.sources["train"] == FileSource(str(sums_file), Messages("chat"))
    assert data.sources["val"] == "some/file.jsonl"
    assert data.template == PlainTemplate("Q: {question}")
    assert data.window == 4
    assert parser.parse_string(parser.dump(config)) == config


def test_configurable_by_arguments(sums_file):
    parser = ArgumentParser()
    parser.add_subclass_arguments(QADataModule, "data")
    arguments = ["--data=QADataModule", f"--data.train={sums_file}", "--data.format=QuestionAnswer"]
    arguments += ["--data.format.answer=solution", "--data.template=ChatTemplate", "--data.template.system_prompt=Sum."]
    data = parser.instantiate(parser.parse_args(arguments)).data
    assert data.sources["train"] == str(sums_file)
    assert data.format == QuestionAnswer(answer="solution")
    assert data.template == ChatTemplate("Sum.")
