"""What every floor above the model may lean on: flights, limits, retry, metrics, logging."""
