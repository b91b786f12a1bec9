"""What tokens cost, and the purse that keeps a spending cap."""
