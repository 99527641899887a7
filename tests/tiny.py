from apportion.testing.tiny import *  # noqa: F403
