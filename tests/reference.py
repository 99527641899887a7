from apportion.testing.reference import *  # noqa: F403
