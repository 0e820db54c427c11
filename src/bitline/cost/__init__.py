"""What a placement costs: counted events, priced circuits."""

from bitline.cost.events import Densities, Events
from bitline.cost.model import Cost, LayerCost, price

__all__ = ["Cost", "Densities", "Events", "LayerCost", "price"]
