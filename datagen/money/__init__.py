"""What tokens cost, and the budget that keeps a spending cap."""
