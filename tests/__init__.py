"""The tests; a package of their own, since an installed one of this name would hide a folder."""
