from functools import partial

from halve.chains import TEXT_STUDENTS, recovery_recipe, shown, student_recipe, text_recipe

TEXT_RECIPES = tuple(partial(text_recipe, kind=kind) for kind in TEXT_STUDENTS)
RECIPES = (student_recipe, recovery_recipe, *TEXT_RECIPES)


def test_recipes_follow_the_lesson(make_lesson):
    lesson = make_lesson(40, seed=5)
    for recipe_of in RECIPES:
        recipe = recipe_of(lesson)
        assert recipe.seed == 5
        assert recipe.batch_size == 40, "no larger than the data"
        assert 0 < recipe.alpha <= 1
        assert recipe_of(make_lesson(300)).batch_size in (128, 250)
    assert recovery_recipe(lesson).epochs < student_recipe(lesson).epochs, "what was cut has less to learn"


def test_the_config_may_set_the_epochs_of_all_trainings(make_lesson):
    lesson = make_lesson(40, epochs=3)
    assert [recipe_of(lesson).epochs for recipe_of in RECIPES] == [3] * len(RECIPES)


def test_a_record_shows_what_decides_a_training(make_lesson):
    recipe = student_recipe(make_lesson(40, epochs=3))
    assert shown(recipe) == {
        "epochs": 3,
        "learning_rate": 2e-3,
        "batch_size": 40,
        "optimizer": "adamw",
        "temperature": 4.0,
        "alpha": 0.9,
        "divergence": "forward_kl",
    }
