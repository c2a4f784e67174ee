"""What machines cost: dated prices, the fleet a demand needs, and the bill. Measures nothing itself."""

from halve.pricing.catalogue import Catalogue, InstanceType
from halve.pricing.fleet import Demand, pack
from halve.pricing.ledger import IDLE_CAPACITY, Bill, ledger

__all__ = ["IDLE_CAPACITY", "Bill", "Catalogue", "Demand", "InstanceType", "ledger", "pack"]
