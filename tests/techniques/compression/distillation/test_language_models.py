from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from halve.errors import InvalidParameterError, ModelError
from halve.techniques.compression.distillation import Recipe, TeacherCache
from halve.techniques.compression.distillation.language_models import (
    Texts,
    TokenLoss,
    agreement,
    continued,
    distil_language_model,
    token_answers,
)

VOCABULARY, LONGEST = 24, 12
RECIPE = Recipe(epochs=12, learning_rate=5e-3, batch_size=16, temperature=2.0, alpha=1.0)


class TinyGpt(nn.Module):
    def __init__(self, width, layers, seed, scale=1.0):
        super().__init__()
        torch.manual_seed(seed)
        self.tokens, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(LONGEST, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.head = nn.Linear(width, VOCABULARY)
        with torch.no_grad():
            self.head.weight.mul_(scale)

    def forward(self, input_ids, attention_mask):
        length = input_ids.shape[1]
        hidden = self.tokens(input_ids) + self.places(torch.arange(length))
        future = torch.full((length, length), -torch.inf).triu(1)
        for block in self.blocks:
            hidden = block(hidden, src_mask=future)
        return self.head(hidden)


@pytest.fixture(scope="module")
def teacher():
    return TinyGpt(24, 2, seed=0, scale=6.0).eval()


def make_texts(rows=64, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, LONGEST + 1, rows)
    mask = (np.arange(LONGEST) < lengths[:, None]).astype(np.int64)
    return Texts(input_ids=rng.integers(0, VOCABULARY, (rows, LONGEST)) * mask, attention_mask=mask)


def test_the_student_comes_to_say_what_the_teacher_says(teacher, tmp_path):
    texts, unseen = make_texts(128), make_texts(seed=1)
    cache = TeacherCache.open(
        tmp_path,
        teacher="tiny",
        inputs_sha256="texts",
        rows=128 * (LONGEST - 1),
        classes=VOCABULARY,
        answer=token_answers(teacher, texts),
        shard_rows=10 * (LONGEST - 1) + 3,
    )
    student = TinyGpt(16, 1, seed=1)
    before = agreement(student.eval(), teacher, unseen)
    done = distil_language_model(student, texts, cache, recipe=RECIPE)
    assert done.history[-1].loss < 0.5 * done.history[0].loss
    assert agreement(student, teacher, unseen) > before + 0.2


def test_a_cache_and_a_live_teacher_give_the_same_loss(teacher):
    texts = make_texts(6)
    answers = token_answers(teacher, texts)(0, 6 * (LONGEST - 1))
    live = lambda batch: teacher(*batch.values())  # noqa: E731
    rows = np.array([5, 2])
    batch = {name: torch.from_numpy(array[rows]) for name, array in texts.inputs.items()}
    student = TinyGpt(16, 1, seed=1)
    losses = [
        TokenLoss(texts, source, recipe=RECIPE)(student(*batch.values()), rows, batch) for source in (answers, live)
    ]
    torch.testing.assert_close(losses[0], losses[1])


def test_the_loss_by_hand_on_a_masked_text():
    # Three tokens of which the last is padding: one target, position 0 predicts token 1.
    texts = Texts(input_ids=np.array([[3, 1, 0]]), attention_mask=np.array([[1, 1, 0]]))
    answers = np.log(np.full((2, 4), 0.25, np.float32))
    logits = torch.zeros(1, 3, 4)
    logits[0, 0, 1] = np.log(5.0)  # 5/8 on the right token, 1/8 on each other.
    batch = {name: torch.from_numpy(array) for name, array in texts.inputs.items()}
    hard = TokenLoss(texts, None, recipe=replace(RECIPE, alpha=0.0))(logits, np.array([0]), batch)
    assert hard.item() == pytest.approx(np.log(8 / 5), abs=1e-6)
    recipe = replace(RECIPE, temperature=1.0)
    soft = TokenLoss(texts, answers, recipe=recipe)(logits, np.array([0]), batch)
    # KL = 1/4 ln(2/5) + 3/4 ln 2 = -0.229073 + 0.519860 = 0.290787
    assert soft.item() == pytest.approx(0.290787, abs=1e-5)


def test_padding_and_what_does_not_count_change_nothing(teacher):
    texts = make_texts(8)
    counted = np.ones_like(texts.attention_mask)
    counted[:, :3] = 0
    student = TinyGpt(16, 1, seed=1)

    def loss(texts):
        rows = np.arange(8)
        batch = {name: torch.from_numpy(array) for name, array in texts.inputs.items()}
        logits = student(*batch.values()).detach()
        answers = token_answers(teacher, texts)(0, 8 * (LONGEST - 1))
        return TokenLoss(texts, answers, recipe=RECIPE)(logits, rows, batch)

    noise = np.where(texts.attention_mask == 0, 7, texts.input_ids)
    torch.testing.assert_close(loss(texts), loss(replace(texts, input_ids=noise)))
    some = replace(texts, counted=counted)
    assert some.positions.sum() < texts.positions.sum()
    assert loss(some) != loss(texts)


def test_answers_do_not_depend_on_where_shards_are_cut(teacher):
    texts = make_texts(5)
    answer = token_answers(teacher, texts)
    whole = answer(0, 55)
    np.testing.assert_allclose(np.concatenate([answer(0, 13), answer(13, 40), answer(40, 55)]), whole, atol=1e-5)
    assert whole.shape == (55, VOCABULARY)


def test_on_the_sequence_level_the_student_learns_the_teachers_own_texts(teacher):
    prompts = make_texts(96)
    prompts = Texts(input_ids=prompts.input_ids[:, :4], attention_mask=np.minimum(prompts.attention_mask[:, :4], 1))
    texts = continued(teacher, prompts, new_tokens=8)
    assert texts.input_ids.shape == (96, 12)
    np.testing.assert_array_equal(texts.counted.sum(axis=1), 8)
    student = TinyGpt(16, 1, seed=1)
    before = agreement(student.eval(), teacher, texts)
    distil_language_model(student, texts, None, recipe=replace(RECIPE, alpha=0.0, epochs=10))
    assert agreement(student, teacher, texts) > before + 0.3


def test_a_greedy_continuation_is_what_the_teacher_likes_best(teacher):
    prompts = Texts(input_ids=np.array([[4, 9, 0], [3, 0, 0]]), attention_mask=np.array([[1, 1, 0], [1, 0, 0]]))
    texts = continued(teacher, prompts, new_tokens=2)
    assert texts.attention_mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]
    ids = [3]
    with torch.no_grad():
        for _ in range(2):
            logits = teacher(torch.tensor([ids]), torch.ones(1, len(ids)))
            ids.append(int(logits[0, -1].argmax()))
    assert texts.input_ids[1, :3].tolist() == ids
    drawn = [continued(teacher, prompts, new_tokens=2, temperature=5.0, seed=seed).input_ids for seed in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_bad_input_is_refused(teacher):
    texts = make_texts(4)
    with pytest.raises(InvalidParameterError, match=r"input_ids must be \(texts, at least 2 tokens\)"):
        Texts(input_ids=np.zeros((3, 1), np.int64), attention_mask=np.zeros((3, 1), np.int64))
    with pytest.raises(InvalidParameterError, match=r"attention_mask must be of shape \(4, 12\), as input_ids"):
        replace(texts, attention_mask=texts.attention_mask[:, :5])
    with pytest.raises(InvalidParameterError, match=r"counted must be at least one token to predict\. Got 0"):
        TokenLoss(replace(texts, counted=np.zeros_like(texts.input_ids)), None, recipe=RECIPE)
    with pytest.raises(InvalidParameterError, match="new_tokens must be at least 1, temperature >= 0"):
        continued(teacher, texts, new_tokens=0)
    batch = {name: torch.from_numpy(array) for name, array in texts.inputs.items()}
    loss = TokenLoss(texts, None, recipe=replace(RECIPE, alpha=0.0))
    with pytest.raises(ModelError, match=r"the student must return logits \(4, 12, 'vocabulary'\)\. Got \(4, 3\)"):
        loss(torch.zeros(4, 3), np.arange(4), batch)
