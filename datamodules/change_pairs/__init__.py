"""Image pairs with a change map between them: in folders, or made-up cities."""

from datamodules.change_pairs.cities import Pairs, make_cities
from datamodules.change_pairs.data import ChangePairsDataModule, SyntheticCitiesDataModule

__all__ = ["ChangePairsDataModule", "Pairs", "SyntheticCitiesDataModule", "make_cities"]
