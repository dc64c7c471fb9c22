"""Names that nobody made up: what the recogniser of names is measured with.

Surnames and given names drawn by frequency from the census of the United States of 1990 (public domain); common
Ukrainian surnames and Russian given names, none of which its list was made from; common surnames in other
scripts (popular-names-by-country, CC0); classes and files of public sets of eyes, as they were published.
"""

_CENSUS_SURNAMES = """
    WALKER MCKNIGHT SANTANA BONEY ROBINSON HUGHES RAMEY WINTER SHERRY ARCHER ACUNA SISCO TEAL MEZA
    GRAHAM LOCKWOOD RODRIGUEZ ENGSTROM ANTHONY BURRUS CHENG DORMAN BENNETT HARRISON MCNEMAR MIMMS BYRON
    BAUMEISTER SUAREZ THOMAS WELCH LUTZ GARDNER MELTON LEDUC BANDA DOOLEY WILLIAMS AMADOR MCKINNEY KLEIN
    BLAIR QUICK FINLEY LEE GAY MESA MCCAULEY BARR GORSUCH FREEMAN WATERS RENARD GLASS BENDER WASHINGTON
    HERNANDEZ DAVIS BOX GLAZIER DIAMOND ROBLES MAYNARD FOSTER VISSER SOUZA FISCHER DORSEY MAHOOD
    CONFORTI MAYFIELD CRUM IVERSON RILEY DEARING VALENTINE STEPHENSON REISER FIGUEROA BERRY MASON JONES
    HUNTLEY FERRIS DYER LOTT NOBLE KINKADE WEBB MCCALL DICKSON SCUDDER OBRIAN LAW RUDDER TROTMAN FIELDS
    GAMMONS GARCIA COY MARLER ROSARIO ONEAL MEAS BUCHOLZ MILLSAP MOORE CRAWFORD COYNE MAXWELL RANDALL
    JOHNSON SMITH NORWOOD OUTLAND WHITE LEATHERMAN REYNOLDS KURTZ CHALMERS
"""
_CENSUS_GIVEN = """
    MINA JULIE KATHLEEN DONALD MARTIN DONNA CARRIE DEENA LES ANNE DANIEL ERIC CAROL ARLEEN SANDY MARY
    DAVID DEANA LUCILLE BONITA HOWARD RON JUNE PATRICIA MATTHEW JAMES CHARLES JEANNETTE ROBERT GLENN
    MELVIN JOHN EARL AARON CHRIS THOMAS ELVIA BETTY BERNICE SALVADOR STANLEY LAURA EVELYN WILLIAM RICK
    INA MARIA TAMARA JONATHON GRACE KEVIN JANE INEZ CHRISTOPHER BARBARA JOANNE ZELDA GEORGE MINNIE
    DUSTIN ARMANDO JARED RANDY NORMAN JOE HYMAN DEBBIE CLAUDE ABEL HIRAM JOSEPH GERALDINE LORETTA STELLA
    RAYMOND FLORINE AMELIA STEPHANIE RAUL JO HEATHER SHIELA JACOB LISA JENNIFER ANDREA DOROTHY KAREN
    FRANK FRED ALBERT MARGARET RICHARD EDWARD MILDRED KIM JACQUELINE ANTHONY REBECCA KEITH MAUREEN
    BRANDON ERNEST ROGER MICHAEL GABRIEL ERNESTINE RHONDA ADRIAN KATHERINE HELEN DALE JEFF EVA DEBORAH
    JANET CYNTHIA DINA PHILLIP SHELDON
"""
_EASTERN_SURNAMES = """
    Melnyk Shevchenko Boiko Tkachenko Kravchenko Kovalchuk Oliinyk Koval Polishchuk Bondar Lysenko
    Tkachuk Moroz Rudenko Klymenko Harchenko Pavlenko Shvets Karpenko Khomenko Havryliuk Voloshyn
    Kolomiiets Chornyi Kushnir Kulyk Kovtun Martyniuk Vovk Mazur Kostiuk Bilous Prykhodko Humeniuk
    Kolisnyk Popovych Honchar Kozak Babenko Zhuk
"""
_EASTERN_GIVEN = """
    Iuliia Anastasiia Tatiana Ekaterina Viktoriia Irina Oksana Nataliia Alina Marina Svetlana Alena
    Daria Inna Valeriia Aleksandra Nadezhda Liudmila Galina Valentina Liliia Evgeniia Mariana Diana
    Karina Ivanna Liubov Margarita Anzhelika Kseniia Alla Veronika Elizaveta Olesia Sofiia Vita Ilona
    Vera Lesia Darina
"""
_OTHER_SCRIPTS = """
    王 李 张 張 陳 陈 林 黃 佐藤 鈴木 高橋 田中 김 金 리 이 Смирно́в Ивано́в Кузнецо́в Попо́в Σαμαράς Παπουτσής Κρητικός
    Αϊβαλιώτης Գրիգորյան Հարությունյան Սարգսյան Հովհաննիսյան ბერიძე მამედოვი კაპანაძე გელაშვილი כהן לוי
    לוי מזרחי កូយ កឹម កែប កែវ আক্তার ইসলাম খাতুন হোসেন चौधरी तामाङ गुरुङ थापा
"""
CENSUS_SURNAMES = _CENSUS_SURNAMES.split()
CENSUS_GIVEN = _CENSUS_GIVEN.split()
EASTERN_SURNAMES = _EASTERN_SURNAMES.split()
EASTERN_GIVEN = _EASTERN_GIVEN.split()
OTHER_SCRIPTS = _OTHER_SCRIPTS.split()
CLASSES = (
    "0.0.Normal",
    "0.1.Tessellated fundus",
    "0.2.Large optic cup",
    "0.3.DR1",
    "1.0.DR2",
    "1.1.DR3",
    "10.0.Possible glaucoma",
    "10.1.Optic atrophy",
    "11.Severe hypertensive retinopathy",
    "12.Disc swelling and elevation",
    "13.Dragged Disc",
    "14.Congenital disc abnormality",
    "15.0.Retinitis pigmentosa",
    "15.1.Bietti crystalline dystrophy",
    "16.Peripheral retinal degeneration and break",
    "17.Myelinated nerve fiber",
    "18.Vitreous particles",
    "19.Fundus neoplasm",
    "2.0.BRVO",
    "2.1.CRVO",
    "20.Massive hard exudates",
    "21.Yellow-white spots-flecks",
    "22.Cotton-wool spots",
    "23.Vessel tortuosity",
    "24.Chorioretinal atrophy-coloboma",
    "25.Preretinal hemorrhage",
    "26.Fibrosis",
    "27.Laser Spots",
    "28.Silicon oil in eye",
    "29.0.Blur fundus without PDR",
    "29.1.Blur fundus with suspected PDR",
    "3.RAO",
    "4.Rhegmatogenous RD",
    "5.0.CSCR",
    "5.1.VKH disease",
    "6.Maculopathy",
    "7.ERM",
    "8.MH",
    "9.Pathological myopia",
    "DR",
    "ARMD",
    "MH",
    "DN",
    "MYA",
    "BRVO",
    "TSLN",
    "ERM",
    "LS",
    "MS",
    "CSR",
    "ODC",
    "CRVO",
    "TV",
    "AH",
    "ODP",
    "ODE",
    "ST",
    "AION",
    "PT",
    "RT",
    "RS",
    "CRS",
    "EDN",
    "RPEC",
    "MHL",
    "RP",
    "CWS",
    "CB",
    "ODPM",
    "PRH",
    "MNF",
    "HR",
    "CRAO",
    "TD",
    "CME",
    "PTCR",
    "CF",
    "VH",
    "MCA",
    "VS",
    "BRAO",
    "PLQ",
    "HPED",
    "CL",
    "Best vitelliform macular dystrophy",
    "Stargardt Disease",
    "Stargardt",
    "Coats Disease",
    "Coats' disease",
    "Leber Congenital Amaurosis",
    "Leber's hereditary optic neuropathy",
    "Irvine-Gass Syndrome",
    "Eales Disease",
    "Terson Syndrome",
    "Sorsby Fundus Dystrophy",
    "Usher Syndrome",
    "Bardet-Biedl Syndrome",
    "Behcet Uveitis",
    "Behçet",
    "Sturge-Weber",
    "Von Hippel-Lindau",
    "Purtscher Retinopathy",
    "Valsalva Retinopathy",
    "Berlin Edema",
    "Marfan",
    "Haab Striae",
    "Fuchs Dystrophy",
    "Fuchs Uveitis",
    "Schnyder Dystrophy",
    "Terrien Marginal Degeneration",
    "Acanthamoeba Keratitis",
    "Peters Anomaly",
    "Axenfeld-Rieger",
    "Posner-Schlossman",
    "Geographic Atrophy",
    "Macular Telangiectasia",
    "MacTel Type 2",
    "Choroidal Neovascularization",
    "Central Serous",
    "Cystoid Macular Edema",
    "Epiretinal Membrane",
    "Full Thickness Macular Hole",
    "Lamellar Hole",
    "Vitreomacular Traction",
    "Polypoidal Choroidal Vasculopathy",
    "Retinal Detachment",
    "Acute Macular Neuroretinopathy",
    "Paracentral Acute Middle Maculopathy",
    "PAMM",
    "Birdshot Chorioretinopathy",
    "Solar Retinopathy",
    "Torpedo Maculopathy",
    "Optic Pit Maculopathy",
    "X-Linked Retinoschisis",
    "Hydroxychloroquine Toxicity",
    "Normal Control",
    "Healthy Volunteers",
    "No_DR",
    "Proliferate_DR",
    "AMRD",
    "MildDR",
    "ModerateDR",
    "Wet AMD",
    "Dry AMD",
    "wet_amd",
    "Not_Gradable",
    "Poor Quality",
    "Low_Signal",
    "Motion Artifact",
    "Blink Artifact",
    "Early AMD",
    "GA",
    "NonNeovascular",
    "Neovascular AMD",
    "Reticular Pseudodrusen",
    "Drusenoid PED",
    "Serous PED",
    "Foveal Hypoplasia",
    "Disc Drusen",
    "Glaucoma Suspect",
    "Pre-perimetric Glaucoma",
    "Ocular Hypertension",
    "Retinal Vein Occlusion",
    "Sickle Cell Retinopathy",
    "Retinopathy of Prematurity",
    "Multiple Sclerosis",
    "Alzheimer",
    "Alzheimer's Disease",
    "Parkinson",
    "Parkinson Disease",
    "Huntington",
    "Wilson Disease",
    "Down Syndrome",
    "Graves Ophthalmopathy",
    "Horner Syndrome",
)
"""Classes of JSIEC's 1,000 fundus images and of RFMiD, and names of diseases, many called after people."""
FILES = (
    "NORMAL-1016042-1",
    "CNV-1016042-1",
    "DRUSEN-95633-12",
    "amd_1047099_1",
    "vid_9898012_3",
    "NORMAL206",
    "AMRD21",
    "CSR12",
    "MH97",
    "DR107",
    "10301",
    "10001",
    "0001",
    "image_0123",
    "Subject_03",
    "DME_patient_7",
    "B10",
    "NIR1",
    "AMD_1047099_1",
    "P01_slice_001",
    "volume3_frame_012",
    "scan-12-of-49",
    "TRAIN001",
    "mask_0012",
    "gt_layer3",
    "IMG_0001",
    "OCT2017",
    "OCTA_3mm",
    "OCT_6mm_10301",
    "training_set",
    "Cirrus_TRAIN001",
    "Spectralis_TEST103",
    "Topcon_TEST042",
    "test_volume",
    "fds_testing_fundus",
    "Label_Predicted_Validation",
    "Retinal_Images",
    "liver_nonbyte_aligned_deflate",
    "parametric_map_double_float",
    "JLSL_RGB_ILV0",
    "left_eye_0",
    "OD_macula_512x128",
    "OS_disc_200x200",
    "P_0123_20um",
    "1-1",
    "e3b0c44298fc1c149afbf4c8996fb924",
    "550e8400-e29b-41d4-a716-446655440000",
    "AMD_left_superior_2",
    "baseline_month12",
    "visit2_week24",
    "5line_raster_1",
    "HD_cross_line",
    "en_face_3x3",
)
"""How public sets, devices and test files call their images."""
