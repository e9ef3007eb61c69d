"""What holds for every test."""

from hypothesis import settings

# A busy machine is no failure: how long an example may take is nobody's promise.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
