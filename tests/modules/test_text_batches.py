import pytest
from short_runs import nrt_module
from torch.utils.data import DataLoader

from nrt_lightning import PlainTemplate, Policy, RegisterPrograms, SFTModule
from nrt_lightning.callbacks.collapse import CollapseDetector
from nrt_lightning.data import TextBatches
from nrt_lightning.export.record import RunRecord


def questions(count):
    """Rows of which every fourth is too long for 40 tokens."""
    rows = RegisterPrograms("train", count).rows()
    return [
        {"id": f"q{n}", "question": row.question * (5 if n % 4 == 1 else 1), "answer": row.answer}
        for n, row in enumerate(rows)
    ]


@pytest.mark.parametrize("batch_size", [1, 2])
def test_long_rows_of_a_dataloader_are_named_and_do_not_stop_the_run(trainer, caplog, batch_size):
    module = nrt_module(text_batches=TextBatches(PlainTemplate(), max_prompt_tokens=40))
    run = trainer(max_steps=-1, max_epochs=1, callbacks=[CollapseDetector()])
    loader = DataLoader(questions(8), batch_size=batch_size)
    run.fit(module, loader, loader)
    assert run.global_step == (6 if batch_size == 1 else 4)
    assert "row q1 " in caplog.text
    assert "row q5 " in caplog.text
    assert module.text_encoder.dropped == 4, "in training and validation"
    predicted = run.predict(module, DataLoader(questions(4), batch_size=batch_size))
    assert [row["id"] for batch in predicted for row in batch] == ["q0", "q2", "q3"]


def test_the_template_of_a_dataloader_is_exported(trainer):
    module = nrt_module(text_batches=TextBatches(PlainTemplate("Q: {question}")))
    run = trainer(max_steps=1)
    run.fit(module, DataLoader(questions(1), batch_size=1))
    assert "Q: " in RunRecord.of(run, module).chat_template


def test_integer_answers_and_limits_in_supervised_training(trainer):
    settings = TextBatches(PlainTemplate(), max_answer_tokens=4)
    module = SFTModule(Policy("embedded:registers-base"), text_batches=settings)
    loader = DataLoader([{"question": "a1+1?a:", "answer": n, "ids": n} for n in (1, 12, 123, 1234)], batch_size=2)
    trainer(max_steps=2).fit(module, loader)
    assert module.text_encoder.dropped == 1
    assert module.text_encoder.known == {"row 1234 of the dataloader"}
