"""Make the embedded table: NHANES 2017-2018 adults with short names and honest gaps.

Reads the public table `nhanes_2017_2018` from the folder that SYNTHMED_DATA names, and writes
nhanes.csv.gz, nhanes_dictionary.csv and ATTRIBUTION.md into synthmed_nb/data. The same input gives
the same bytes.

    SYNTHMED_DATA=/path/to/data python benchmarks/make_nhanes.py
"""

import os
from pathlib import Path

import pandas as pd

from synthmed_nb.columns import unit_of
from synthmed_nb.datasets import load
from synthmed_nb.schema import few
from synthmed_nb.tables import read_table, write_table, write_text

OUT = Path(__file__).parents[1] / "synthmed_nb" / "data"

NAMES = {  # name in the source: name here
    "SEQN": "respondent_id",
    "Gender": "sex",
    "AgeInYearsAtScreening": "age_years",
    "RacehispanicOriginWNhAsian": "ethnicity",
    "EducationLevelAdults20": "education",
    "MaritalStatus": "marital_status",
    "RatioOfFamilyIncomeToPoverty": "income_poverty_ratio",
    "CoveredByHealthInsurance": "insured",
    "GeneralHealthCondition": "general_health",
    "WeightKg": "weight_kg",
    "StandingHeightCm": "height_cm",
    "BodyMassIndexKgm2": "bmi_kg_m2",
    "WaistCircumferenceCm": "waist_cm",
    "SystolicBloodPres1StRdgMmHg": "sbp_mmhg",
    "DiastolicBloodPres1StRdgMmHg": "dbp_mmhg",
    "60SecPulse30SecPulse2": "pulse_bpm",
    "TotalCholesterolMgdl": "total_cholesterol_mg_dl",
    "DirectHdlcholesterolMgdl": "hdl_mg_dl",
    "Glycohemoglobin": "hba1c_pct",
    "BloodLeadUgdl": "lead_ug_dl",
    "BloodCadmiumUgl": "cadmium_ug_l",
    "BloodMercuryTotalUgl": "mercury_ug_l",
    "BloodSeleniumUgl": "selenium_ug_l",
    "BloodManganeseUgl": "manganese_ug_l",
    "EverBeenToldYouHaveAsthma": "asthma",
    "EverToldYouHadHeartAttack": "heart_attack",
    "EverToldYouHadAStroke": "stroke",
    "DoctorEverSaidYouHadArthritis": "arthritis",
    "EverToldYouHadCancerOrMalignancy": "cancer",
    "TakingInsulinNow": "insulin",
    "TakeDiabeticPillsToLowerBloodSugar": "diabetes_pills",
    "EverToldYouHavePrediabetes": "prediabetes",
    "SmokedAtLeast100CigarettesInLife": "smoked_100_cigarettes",
    "DoYouNowSmokeCigarettes": "smokes_now",
    "VigorousRecreationalActivities": "vigorous_exercise",
    "ModerateRecreationalActivities": "moderate_exercise",
    "MinutesSedentaryActivity": "sedentary_minutes",
    "SleepHoursWeekdaysOrWorkdays": "sleep_hours",
    "EverToldDoctorHadTroubleSleeping": "trouble_sleeping",
    "FeelingDownDepressedOrHopeless": "feeling_down",
    "FeelingTiredOrHavingLittleEnergy": "feeling_tired",
    "EnergyKcal_DR1TOT": "energy_kcal",
    "ProteinGm_DR1TOT": "protein_g",
    "TotalSugarsGm_DR1TOT": "sugars_g",
    "AlcoholGm_DR1TOT": "alcohol_g",
    "DoctorToldYouHaveDiabetes": "diabetes",
}
UNKNOWN = ("Refused", "Don't Know", "Don't know")
SEDENTARY_UNKNOWN = 9999
MENDED = {"Fair or": "Fair", "Poor?": "Poor"}
DIABETES = {"0": "no", "1": "yes", "Borderline": "borderline"}
FREQUENCY = "; 0 not at all, 1 several days, 2 more than half the days, 3 nearly every day"
NOTES = {  # what the column says that its label does not
    "age_years": "; 80 stands for 80 and more",
    "income_poverty_ratio": "; 5 stands for 5 and more",
    "feeling_down": FREQUENCY,
    "feeling_tired": FREQUENCY,
}

ATTRIBUTION = """\
# Where nhanes.csv.gz comes from

National Health and Nutrition Examination Survey (NHANES) 2017-2018, public-use files of the Centers
for Disease Control and Prevention (CDC), National Center for Health Statistics (NCHS), Hyattsville,
Maryland, United States. As a work of the US government the data are in the public domain. The NCHS
data use terms ask that they be used for statistical reporting and analysis only, and that nobody
try to learn the identity of a person in them.

The files were combined, and their codes decoded, by the Python package `nhanes` 0.5.1 (R. Poldrack,
MIT licence), file combined_data/2017-2018.

Taken over: adults of 20 years and more, {rows:,} people, {columns} columns. Survey weights are not
included, so frequencies are not estimates for the United States. `nhanes_dictionary.csv` names for
each column its NHANES variable and what was changed.
"""


def mended(column: pd.Series, name: str) -> tuple[pd.Series, str]:
    """A source column in its new form, and what was changed, in words."""
    if name == "diabetes":
        return column.map(DIABETES), "0 and 1 written as no and yes, Borderline as borderline"
    if name == "general_health":
        return column.replace(MENDED), "Fair or and Poor? written as Fair and Poor"
    if name == "dbp_mmhg":
        return column.mask(column == 0), "0 is no pressure: a gap now"
    if name == "sedentary_minutes":
        return column.mask(column == SEDENTARY_UNKNOWN), "9999 stands for unknown: a gap now"
    if pd.api.types.is_numeric_dtype(column):
        if set(column.dropna()) == {0, 1}:
            return column.map({0: "no", 1: "yes"}), "0 and 1 written as no and yes"
        return column.round(4), ""  # the source carries noise in the 13th digit
    unknown = column.isin(UNKNOWN)
    return column.mask(unknown), "Don't Know: a gap now" if unknown.any() else ""


def whole_numbers(column: pd.Series) -> pd.Series:
    """Numbers without decimals as integers, with or without gaps."""
    if not pd.api.types.is_float_dtype(column) or (column.dropna() % 1 != 0).any():
        return column
    return column.astype("Int64" if column.isna().any() else "int64")


def values_of(column: pd.Series) -> str:
    """Levels of a category, or the kind of number; no range: its ends are one person's values."""
    if pd.api.types.is_integer_dtype(column):
        return "whole number"
    if pd.api.types.is_numeric_dtype(column):
        return "number"
    return "; ".join(sorted(column.dropna().unique()))


def make(source: pd.DataFrame, variables: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The embedded table and its dictionary."""
    adults = source[source["AgeInYearsAtScreening"] >= 20].reset_index(drop=True)
    columns, rows = {}, []
    for old, name in NAMES.items():
        before = adults[old]
        after, changed = mended(before, name)
        columns[name] = whole_numbers(after)
        gaps = int((before.notna() & after.isna()).sum())
        rows.append(
            {
                "name": name,
                "source_name": old,
                "nhanes_variable": variables["Variable"].get(old, old),
                "label": variables["Label"].get(old, "Respondent sequence number"),
                "unit": unit_of(name) or "",
                "values": values_of(columns[name]) + NOTES.get(name, ""),
                "changed": changed,
                "new_gaps": few(gaps) if gaps else "",
            }
        )
    return pd.DataFrame(columns), pd.DataFrame(rows)


def main() -> None:
    """Write the three files, and prove that the table is read back as it was made."""
    variables = read_table(Path(os.environ["SYNTHMED_DATA"]) / "nhanes_2017_2018/variables.csv")
    table, dictionary = make(load("nhanes_2017_2018"), variables.set_index(variables.columns[0]))
    write_table(table, OUT / "nhanes.csv.gz")
    write_table(dictionary, OUT / "nhanes_dictionary.csv")
    rows, columns = table.shape
    write_text(OUT / "ATTRIBUTION.md", ATTRIBUTION.format(rows=rows, columns=columns))
    pd.testing.assert_frame_equal(read_table(OUT / "nhanes.csv.gz"), table)
    size = (OUT / "nhanes.csv.gz").stat().st_size
    print(f"{rows:,} x {columns}, {table.isna().mean().mean():.1%} missing, {size:,} bytes")


if __name__ == "__main__":
    main()
