"""The best recipes trained again on fresh seeds: planned, compared beyond noise, and tested once."""
