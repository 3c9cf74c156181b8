"""Conformance: what every method and every reward keeps, checked by running it.

``methods`` and ``rewards`` hold the checks, ``tiny`` the model on which methods run in seconds,
``subject`` finds what is to be checked. The tests run the same checks on all that is registered.
"""
