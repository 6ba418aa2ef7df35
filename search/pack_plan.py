"""Which packs a study's trials are to train in."""

from dataclasses import dataclass, replace

from search.packing import MOST_SHAPES, changes_images, count_shapes, typical_recipe
from search.space import Space
from trainer.packed.pack import PackKey
from trainer.recipe import Recipe


@dataclass(frozen=True)
class PackPlan:
    """Which packs there may be, and of how many slots.

    Attributes:
        slots: Of each pack whose shape many trials have.
        shapes: How many shapes those are; 0 where each trial may have a shape of its own.
        key: The only shape, where there is one.
        augments: Whether packs change images at random, those of recipes that do not as well.
    """

    slots: int
    shapes: int
    key: PackKey | None
    augments: bool

    @classmethod
    def of(cls, space: Space, slots: int) -> "PackPlan":
        """The plan for recipes of `space` in packs of so many slots, at least 1."""
        shapes, augments = count_shapes(space), changes_images(space)
        key = replace(PackKey.of(typical_recipe(space)), augments=augments) if shapes == 1 else None
        return cls(slots, int(shapes) if shapes <= MOST_SHAPES else 0, key, augments)

    @property
    def capacity(self) -> int:
        """Trials at a time: one, where they have not enough in common."""
        return self.slots * self.shapes or 1

    @property
    def packs(self) -> int:
        """Packs at a time.

        One more than there are shapes, for what does not fit in, such as a trial that goes on in another
        precision.
        """
        return self.shapes + 1

    def key_of(self, recipe: Recipe) -> PackKey:
        """Of the pack that the recipe is to train in."""
        key = PackKey.of(recipe)
        return replace(key, augments=key.augments or self.augments)

    def slots_of(self, key: PackKey) -> int:
        """Slots of a pack of that key."""
        return self.slots if self.shapes > 1 or key == self.key else 1
