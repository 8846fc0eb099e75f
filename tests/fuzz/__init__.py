"""Programs that try many broken inputs; they are not collected by pytest."""
