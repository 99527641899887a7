"""`apportion plugins check`: inspects extensions and tries them out."""
