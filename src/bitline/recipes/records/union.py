"""All recipes: which record values make, by the name of the recipe."""

from typing import Annotated, Any, TypeVar, get_args

from pydantic import Field

from bitline.errors import DataError, nearest
from bitline.recipes.records.auto import Auto
from bitline.recipes.records.base import Recipe
from bitline.recipes.records.conventional import Conventional
from bitline.recipes.records.crimp import Crimp
from bitline.recipes.records.group import Group
from bitline.recipes.records.mixed import Mixed
from bitline.recipes.records.psum_aware import PsumAware
from bitline.recipes.records.quantization_aware import QuantizationAware
from bitline.recipes.records.separable import Separable

R = TypeVar("R", bound=Recipe)
AnyRecipe = Annotated[
    Conventional | QuantizationAware | PsumAware | Group | Separable | Mixed | Auto | Crimp,
    Field(discriminator="recipe"),
]
RECORDS: dict[str, type[Recipe]] = {record.name(): record for record in get_args(get_args(AnyRecipe)[0])}
"""recipe -> its record"""


def record_of(recipe: object) -> type[Recipe]:
    """Return the record of a recipe.

    Raises:
        DataError: an unknown recipe.
    """
    if recipe not in RECORDS:
        raise DataError(f"recipe is {recipe!r}; allowed: {', '.join(RECORDS)}{nearest(str(recipe), RECORDS)}")
    return RECORDS[str(recipe)]


def users(field: str) -> list[str]:
    """Return the recipes that have a field."""
    return [recipe for recipe, record in RECORDS.items() if field in record.model_fields]


def checked(**values: Any) -> Recipe:
    """Build the record of the recipe that `recipe` names, and say what is wrong in one line.

    Raises:
        DataError: an unknown recipe, a key that it does not use, or a value that is not allowed.
    """
    record = record_of(values.get("recipe"))
    for key, value in values.items():
        if key not in record.model_fields and (others := users(key)):
            raise DataError(
                f"{key} is {value!r}, which recipe {record.name()} does not use: it is of {', '.join(others)}"
            )
    return record.checked(**values)


def convert(config: Recipe, record: type[R], **changes: Any) -> R:
    """Return another recipe, with what it shares with this one and some changes."""
    shared = {key: value for key, value in config if key in record.model_fields}
    return record.checked(**{**shared, **changes, "recipe": record.name()})
