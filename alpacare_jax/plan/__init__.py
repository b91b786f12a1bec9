"""Planning a run before devices are rented: what its step needs, what fits, which sensible way is fastest."""
