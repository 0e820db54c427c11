"""What a recipe is told: one frozen record a recipe, made of records that several share.

The text below a field is its documentation and its line in ``bitline optimize RECIPE --help``.
"""
