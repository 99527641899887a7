"""`apportion plugins check`: extensions are looked at and tried out."""
