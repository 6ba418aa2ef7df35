"""Which packs a study's trials are to train in."""

from dataclasses import dataclass, replace

from search.packing import changes_images, shaped_recipes, shares_programs
from search.space import Space
from trainer.packed.pack import PackKey
from trainer.precision import Precision
from trainer.recipe import Recipe


@dataclass(frozen=True)
class PackPlan:
    """Which packs there may be, and of how many slots.

    Attributes:
        slots: Of each pack whose shape many trials have.
        keys: Those shapes; none where each trial may have a shape of its own.
        precision: What trials train in that begin here.
        augments: Whether packs change images at random, those of recipes that do not as well.
    """

    slots: int
    keys: frozenset[PackKey]
    precision: Precision
    augments: bool

    @classmethod
    def of(cls, space: Space, slots: int, precision: Precision = "float32") -> "PackPlan":
        """The plan for recipes of `space` in packs of so many slots, at least 1."""
        augments = changes_images(space)
        recipes = shaped_recipes(space) if shares_programs(space) else []
        keys = frozenset(replace(PackKey.of(recipe), augments=augments) for recipe in recipes)
        return cls(slots, keys, precision, augments)

    @property
    def capacity(self) -> int:
        """Trials at a time: one, where they have not enough in common."""
        return self.slots * len(self.keys) or 1

    @property
    def packs(self) -> int:
        """Packs at a time.

        One more than there are shapes, for what does not fit in, such as a trial that goes on in another
        precision.
        """
        return len(self.keys) + 1

    def key_of(self, recipe: Recipe) -> PackKey:
        """Of the pack that the recipe is to train in."""
        key = PackKey.of(recipe)
        return replace(key, augments=key.augments or self.augments)

    def slots_of(self, key: PackKey, precision: Precision) -> int:
        """Slots of a pack of that key and precision: one for what few trials have."""
        return self.slots if key in self.keys and precision == self.precision else 1
