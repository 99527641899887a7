from apportion.testing.games import *  # noqa: F403
