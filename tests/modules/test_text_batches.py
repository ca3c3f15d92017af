import lightning as L
import pytest
import torch
from short_runs import nrt_module
from torch.utils.data import DataLoader
from transformers import AutoTokenizer

from nrt_lightning import (
    ChatTemplate,
    GeometricMean,
    InputError,
    Method,
    OnPolicyRollout,
    PlainTemplate,
    Policy,
    RegisterPrograms,
    Sampling,
    SFTModule,
    export_policy,
)
from nrt_lightning.callbacks.collapse import CollapseDetector
from nrt_lightning.data import PromptEncoder, PromptTemplate, TextBatches
from nrt_lightning.export.record import RunRecord
from nrt_lightning.structures import Row


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


@pytest.mark.parametrize("own", [False, True])
def test_data_of_which_no_row_fits_ends_the_run(trainer, own):
    module = OwnModule() if own else nrt_module(text_batches=TextBatches(PlainTemplate(), max_prompt_tokens=2))
    rows = [{"question": "a" * 100, "answer": "d1"}] * 4
    with pytest.raises(InputError, match="None of the 2 batches of epoch 0 has a row that fits"):
        trainer(max_steps=2).fit(module, DataLoader(rows, batch_size=2))


def test_empty_batches_end_the_run(trainer):
    with pytest.raises(InputError, match="None of the 2 batches of epoch 0"):
        trainer(max_steps=2).fit(nrt_module(), DataLoader([{"question": [], "answer": []}] * 2, batch_size=None))


@pytest.mark.parametrize("module", [nrt_module, lambda: SFTModule(Policy("embedded:registers-base"))])
@pytest.mark.parametrize("batch", [[("a1+1?a:", "a2")], ("a1+1?a:", "a2"), "a1+1?a:", torch.zeros(2, 3)], ids=type)
def test_batches_of_another_form_are_refused_with_the_simplest_one(trainer, batch, module):
    with pytest.raises(InputError, match=r"batch of type .*\{'question': \[\.\.\.\], 'answer': \[\.\.\.\]\}"):
        trainer(max_steps=2).fit(module(), DataLoader([batch], batch_size=None))


def test_the_template_of_a_dataloader_is_exported(trainer):
    module = nrt_module(text_batches=TextBatches(PlainTemplate("Q: {question}")))
    run = trainer(max_steps=1)
    run.fit(module, DataLoader(questions(1), batch_size=1))
    assert "Q: " in RunRecord.of(run, module).chat_template


def test_an_export_has_no_template_that_makes_other_prompts(trainer, tmp_path, caplog):
    """The dataloader yields `Prompts` of the user's own, and the base has a chat template."""
    module = nrt_module()
    policy = module.policy
    policy.tokenizer.chat_template = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"

    class Upside(PromptTemplate):
        def render(self, row, tokenizer):
            return row.question[::-1]

    def loader(template):
        encoder = PromptEncoder(policy.tokenizer, template.with_markup(policy.markup))
        rows = encoder.encode([Row(str(n), [{"role": "user", "content": f"a{n}+1?a:"}], "a2") for n in range(4)])
        return DataLoader(rows, batch_size=2, collate_fn=rows.collate)

    run = trainer(max_steps=1)
    run.fit(module, loader(Upside()))
    directory = export_policy(policy, tmp_path / "other", record=RunRecord.of(run, module))
    assert AutoTokenizer.from_pretrained(directory).chat_template is None
    assert "no chat template" in caplog.text
    again = nrt_module(policy=policy)
    run = trainer(max_steps=1)
    run.fit(again, loader(ChatTemplate()))
    directory = export_policy(policy, tmp_path / "same", record=RunRecord.of(run, again))
    assert AutoTokenizer.from_pretrained(directory).chat_template == policy.tokenizer.chat_template


def test_the_template_of_an_encoder_of_the_users_own_is_exported(trainer):
    class Mine(OwnModule):
        def training_step(self, batch, batch_idx):
            scores = self.method.score(batch)
            return self.method.compute_loss(batch, scores, self.method.assign_credit(batch, scores)).loss

        def configure_optimizers(self):
            return torch.optim.SGD(self.policy.parameters(), lr=0.0)

    module = Mine()
    module.policy.load()
    module.policy.tokenizer.chat_template = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    run = trainer(max_steps=1, callbacks=[OnPolicyRollout()])
    run.fit(module, DataLoader(questions(2), batch_size=1))
    found = RunRecord.of(run, module)
    assert found.chat_template == PlainTemplate().jinja(module.policy.tokenizer)
    assert len(found.prompts) == 1


def test_integer_answers_and_limits_in_supervised_training(trainer):
    settings = TextBatches(PlainTemplate(), max_answer_tokens=4)
    module = SFTModule(Policy("embedded:registers-base"), text_batches=settings)
    loader = DataLoader([{"question": "a1+1?a:", "answer": n, "ids": n} for n in (1, 12, 123, 1234)], batch_size=2)
    trainer(max_steps=2).fit(module, loader)
    assert module.text_encoder.dropped == 1
    assert module.text_encoder.known == {"row 1234 of the dataloader"}


class OwnModule(L.LightningModule):
    """Of the user, whose dataloader yields dicts."""

    def __init__(self):
        super().__init__()
        sampling = Sampling(group_size=2, max_trace_tokens=6)
        self.method = Method(Policy("embedded:registers-base"), aggregator=GeometricMean(), sampling=sampling)
        self.policy = self.method.policy
        self.texts = TextBatches(PlainTemplate(), max_prompt_tokens=40).encoder(self.policy)

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return self.texts.encode(batch)

    def configure_callbacks(self):
        return [OnPolicyRollout()]

    def configure_model(self):
        self.policy.load()

    def training_step(self, batch, batch_idx):
        scores = self.method.score(batch)
        return self.method.compute_loss(batch, scores, self.method.assign_credit(batch, scores)).loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.policy.parameters(), lr=1e-3)


def test_a_module_of_the_user_takes_dicts(trainer, caplog):
    module = OwnModule()
    run = trainer(max_steps=-1, max_epochs=1)
    run.fit(module, DataLoader(questions(8), batch_size=1))
    assert run.global_step == 6, "two rows are too long"
    assert "row q1 " in caplog.text
    encoded = module.texts.encode({"question": ["a1+1?a:"], "answer": [2]})
    assert module.texts.encode(encoded) is encoded
    assert module.texts.template.markup == module.policy.markup
