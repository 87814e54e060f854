"""Numbers of a configuration by which intervals differ between the photographs of tests."""

WIDE_INTERVALS = {
    "interval_radius": 0.1,
    "interval_scale": {
        "intercept": 0.1,
        "distance": 0.3,
        "spread": 0.2,
        "quality": -0.5,
        "quality_squared": 0.4,
        "lowest": 0.02,
        "highest": 50.0,
    },
    "familiar_distances": [-4.0, -3.0, -1.0, 0.0, 0.5, 6.0],
}
